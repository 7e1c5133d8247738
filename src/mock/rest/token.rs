//! Tokens: who, and until when. Any manager takes any manager's, a restarted one too, as with the real one's shared signing key;
//! but these are for tests, and guarded against mistakes alone: anyone who reads this can make one. The name at their beginning
//! is what a test knows one by, where none should be.

use std::{fmt, str::FromStr};

use axum::http::{HeaderMap, header};

use crate::mock::table::Millis;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) name: String,
    pub(super) user: u64,
    pub(super) issued: Millis,
    pub(super) expires: Millis,
}

fn seal(claims: &str) -> u32 {
    crate::spool::format::crc32(format!("mock {claims}").as_bytes())
}

impl fmt::Display for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let claims = format!("{}.{}.{}.{}", self.name, self.issued, self.expires, self.user);
        write!(f, "{claims}.{:08x}", seal(&claims))
    }
}

impl FromStr for Claims {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (claims, sum) = text.rsplit_once('.').ok_or(())?;
        if u32::from_str_radix(sum, 16) != Ok(seal(claims)) {
            return Err(());
        }
        let mut fields = claims.rsplitn(4, '.');
        let (user, expires) = fields.next().zip(fields.next()).ok_or(())?;
        let (issued, name) = fields.next().zip(fields.next()).ok_or(())?;
        Ok(Self {
            name: name.to_owned(),
            user: user.parse().map_err(drop)?,
            issued: issued.parse().map_err(drop)?,
            expires: expires.parse().map_err(drop)?,
        })
    }
}

/// The token of a request, `Authorization: Bearer` or the cookie `jwt`, if it counts now.
pub(super) fn of(headers: &HeaderMap, now: Millis) -> Option<Claims> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
    let bearer = text(header::AUTHORIZATION).and_then(|v| v.strip_prefix("Bearer "));
    let cookie = || text(header::COOKIE)?.split(';').find_map(|pair| pair.trim().strip_prefix("jwt="));
    let claims: Claims = bearer.or_else(cookie)?.parse().ok()?;
    (claims.expires > now).then_some(claims)
}
