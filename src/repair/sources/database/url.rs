//! `--database-url`, and what is wrong with one: said without any part of it, since a password with a special character that
//! isn't encoded can end up in any field.

use std::{fmt, path::PathBuf};

use percent_encoding::percent_decode_str;
use reqwest::Url;

use crate::secret::Secret;

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    MySql,
    MariaDb,
    Postgres,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::MySql => "MySQL",
            Kind::MariaDb => "MariaDB",
            Kind::Postgres => "PostgreSQL",
        })
    }
}

/// What is asked of TLS. MySQL's word, then PostgreSQL's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsMode {
    /// `disabled`, `disable`.
    Never,
    /// `preferred`, `prefer`: where the server offers it; whoever sits between can take it away.
    Preferred,
    /// `required`, `require`: encrypted, to whoever answers.
    Required,
    /// `verify_ca`, `verify-ca`: the certificate's CA is checked, its name isn't.
    VerifyCa,
    /// `verify_identity`, `verify-full`: both.
    VerifyIdentity,
}

impl TlsMode {
    fn verifies(self) -> bool {
        matches!(self, TlsMode::VerifyCa | TlsMode::VerifyIdentity)
    }
}

/// Where the database is, and who reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) kind: Kind,
    /// A name or an address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) database: String,
    pub(crate) user: String,
    pub(crate) password: Option<Secret>,
    pub(crate) tls: TlsMode,
    pub(crate) ca: Option<PathBuf>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        let Self { kind, host, port, database, .. } = self;
        write!(f, "database {database} on {open}{host}{close}:{port} ({kind})")
    }
}

/// A `--database-url` that is none. Names the field and what would be right there; shows no part of the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "database URL: {field}: {right}. It is mysql://user@host:3306/manager or postgres://user@host:5432/manager, with the password in a file, or behind the user with @ : / ? # % written as %40 %3A %2F %3F %23 %25"
)]
pub struct DatabaseUrlError {
    /// Which part is wrong.
    pub field: &'static str,
    /// What would be right there.
    pub right: &'static str,
}

fn wrong<T>(field: &'static str, right: &'static str) -> Result<T, DatabaseUrlError> {
    Err(DatabaseUrlError { field, right })
}

fn decoded(field: &'static str, text: &str) -> Result<String, DatabaseUrlError> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) if !text.chars().any(char::is_control) => Ok(text.into_owned()),
        _ => wrong(field, "it is no text in UTF-8, percent-encoded"),
    }
}

impl Place {
    pub(crate) fn parse(text: &str) -> Result<Self, DatabaseUrlError> {
        use std::net::Ipv6Addr;
        if !text.contains("://") {
            return wrong("scheme", "it is missing; use mysql://, mariadb:// or postgres://");
        }
        let url =
            Url::parse(text).or_else(|_| wrong("host or port", "no host name, address or port number"))?;
        let (kind, usual_port) = match url.scheme() {
            "mysql" => (Kind::MySql, 3306),
            "mariadb" => (Kind::MariaDb, 3306),
            "postgres" | "postgresql" => (Kind::Postgres, 5432),
            _ => return wrong("scheme", "use mysql://, mariadb:// or postgres://"),
        };
        if url.fragment().is_some() {
            return wrong("#", "a URL of a database has nothing behind a #");
        }
        let host = url.host_str().unwrap_or_default();
        let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Some(inner) if inner.parse::<Ipv6Addr>().is_ok() => inner,
            None if !host.is_empty()
                && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) =>
            {
                host
            }
            _ => return wrong("host", "it is missing, or neither a host name nor an address"),
        };
        let user = decoded("user", url.username())?;
        if user.is_empty() {
            return wrong("user", "it is missing");
        }
        let password = url.password().map(|text| decoded("password", text)).transpose()?;
        let database = decoded("database", url.path().trim_start_matches('/'))?;
        if database.is_empty() {
            return wrong(
                "database",
                "its name is missing (the manager's is `manager` unless it was set otherwise)",
            );
        }
        if database.contains(['/', '@', ':', '?', '#', '`', '"', '\'']) {
            return wrong("database", "a name has none of / @ : ? # and no quotes");
        }
        let mut place = Self {
            kind,
            host: host.to_owned(),
            port: url.port().unwrap_or(usual_port),
            database,
            user,
            password: password.filter(|p| !p.is_empty()).map(Secret::new),
            tls: TlsMode::Preferred,
            ca: None,
        };
        if place.port == 0 {
            return wrong("port", "it is a number from 1 to 65535");
        }
        place.parameters(&url)?;
        Ok(place)
    }

    fn parameters(&mut self, url: &Url) -> Result<(), DatabaseUrlError> {
        let postgres = self.kind == Kind::Postgres;
        let mut mode = None;
        for (name, value) in url.query_pairs() {
            match &*name {
                "ssl-mode" | "sslmode" => mode = Some(mode_of(&value, postgres)?),
                "ssl-ca" | "sslca" if !postgres => self.ca = Some(PathBuf::from(&*value)),
                "sslrootcert" if postgres => self.ca = Some(PathBuf::from(&*value)),
                _ if postgres => return wrong("parameters", "there are sslmode and sslrootcert"),
                _ => return wrong("parameters", "there are ssl-mode and ssl-ca"),
            }
        }
        let (ca_name, verify) = if postgres {
            ("sslrootcert", "it is used by sslmode=verify-full and verify-ca alone")
        } else {
            ("ssl-ca", "it is used by ssl-mode=verify_identity and verify_ca alone")
        };
        if self.ca.as_ref().is_some_and(|ca| ca.as_os_str().is_empty()) {
            return wrong(ca_name, "it is the path of a file with certificates in PEM");
        }
        self.tls = match (mode, &self.ca) {
            (Some(mode), Some(_)) if !mode.verifies() => return wrong(ca_name, verify),
            (Some(mode), _) => mode,
            // Who names a CA wants it used.
            (None, Some(_)) => TlsMode::VerifyIdentity,
            (None, None) => TlsMode::Preferred,
        };
        Ok(())
    }
}

fn mode_of(value: &str, postgres: bool) -> Result<TlsMode, DatabaseUrlError> {
    Ok(match value.to_ascii_lowercase().replace('_', "-").as_str() {
        "disable" | "disabled" => TlsMode::Never,
        "prefer" | "preferred" => TlsMode::Preferred,
        "require" | "required" => TlsMode::Required,
        "verify-ca" => TlsMode::VerifyCa,
        "verify-full" | "verify-identity" => TlsMode::VerifyIdentity,
        _ if postgres => return wrong("sslmode", "use disable, prefer, require, verify-ca or verify-full"),
        _ => {
            return wrong("ssl-mode", "use disabled, preferred, required, verify_ca or verify_identity");
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_read_and_a_name_shows_no_user_and_no_password() {
        let place = Place::parse("mysql://sign%40off:p%40ss%2Fw%C3%B6rd@db:3307/manager").unwrap();
        assert_eq!((place.kind, &*place.host, place.port), (Kind::MySql, "db", 3307));
        assert_eq!((&*place.user, place.password.as_ref().unwrap().expose()), ("sign@off", "p@ss/wörd"));
        assert_eq!((place.tls, &place.ca), (TlsMode::Preferred, &None));
        assert_eq!(place.to_string(), "database manager on db:3307 (MySQL)");
        let place = Place::parse("postgresql://signoff@[fd00::1]/manager").unwrap();
        assert_eq!((place.password.as_ref(), place.port), (None, 5432));
        assert_eq!(place.to_string(), "database manager on [fd00::1]:5432 (PostgreSQL)");
        let place = Place::parse("mariadb://u@10.0.0.1/m").unwrap();
        assert_eq!(place.to_string(), "database m on 10.0.0.1:3306 (MariaDB)");
    }

    #[test]
    fn tls_is_asked_for_in_either_databases_words_and_a_ca_is_used() {
        for (url, tls, ca) in [
            ("mysql://u@h/m?ssl-mode=REQUIRED", TlsMode::Required, None),
            ("mysql://u@h/m?ssl-mode=VERIFY_CA&ssl-ca=/ca.pem", TlsMode::VerifyCa, Some("/ca.pem")),
            ("mysql://u@h/m?ssl-ca=/ca.pem", TlsMode::VerifyIdentity, Some("/ca.pem")),
            ("postgres://u@h/m?sslmode=verify-full", TlsMode::VerifyIdentity, None),
            ("postgres://u@h/m?sslmode=disable", TlsMode::Never, None),
            ("postgres://u@h/m?sslrootcert=ca.pem", TlsMode::VerifyIdentity, Some("ca.pem")),
        ] {
            let place = Place::parse(url).unwrap();
            assert_eq!((place.tls, place.ca), (tls, ca.map(PathBuf::from)), "{url}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field_and_no_part_of_the_url_is_shown() {
        for (url, field) in [
            // As the manager's own configuration has it, for Go's driver.
            ("hunter2:hunter2@tcp(h:3306)/hunter2", "scheme"),
            ("oracle://hunter2:hunter2@h/m", "scheme"),
            ("mysql://u:hun/ter2@h/m", "host or port"),
            ("mysql://u:hun#ter2@h/m", "host or port"),
            ("mysql://u:123#hunter2@h/m", "#"),
            ("mysql://u:123/hunter2@h/m", "user"),
            ("mysql://u:123?hunter2@h/m", "user"),
            ("mysql://x@u:123/hunter2@h/m", "database"),
            ("mysql://x@u:123/m?hunter2@h/m", "parameters"),
            ("mysql://hunter2@:3306/m", "host or port"),
            ("mysql://hunter2@%2Ftmp/m", "host"),
            ("mysql://hunter2@h:0/m", "port"),
            ("mysql://hunter2@h:70000/m", "host or port"),
            ("mysql://hunter2@h", "database"),
            ("mysql://hunter2%ff@h/m", "user"),
            ("mysql://u:hunter2%ff@h/m", "password"),
            ("mysql://u@h/m?ssl-mode=hunter2", "ssl-mode"),
            ("postgres://u@h/m?sslmode=hunter2", "sslmode"),
            ("postgres://u@h/m?ssl-ca=hunter2", "parameters"),
            ("mysql://u@h/m?ssl-ca=", "ssl-ca"),
            ("mysql://u@h/m?ssl-ca=hunter2&ssl-mode=required", "ssl-ca"),
            ("postgres://u@h/m?sslrootcert=hunter2&sslmode=require", "sslrootcert"),
        ] {
            let error = Place::parse(url).unwrap_err();
            assert_eq!(error.field, field, "{url}: {error}");
            assert!(
                !error.to_string().contains("hunter2") && !error.to_string().contains("ter2@"),
                "{error}"
            );
        }
        let place = Place::parse("mysql://u:hunter2@h/m").unwrap();
        assert!(!format!("{place:?}").contains("hunter2"));
    }
}
