//! A fault as text, the way `--fault` takes it.

use std::str::FromStr;

use super::{Fault, FaultError, Scope};

impl FromStr for Fault {
    type Err = FaultError;
    fn from_str(text: &str) -> Result<Self, FaultError> {
        let (kind, mut rest) = text.split_once(',').unwrap_or((text, ""));
        let mut fault = Fault::new(kind.trim().parse()?);
        while !rest.is_empty() {
            if let Some(message) = rest.strip_prefix("message=") {
                fault.message = Some(message.to_owned());
                break;
            }
            let (part, more) = rest.split_once(',').unwrap_or((rest, ""));
            rest = more;
            let (name, value) = part.split_once('=').ok_or_else(|| FaultError::Parameter(part.to_owned()))?;
            let wrong = |name, what| FaultError::Value(name, value.to_owned(), what);
            match name.trim() {
                "count" => fault.count = Some(value.parse().map_err(|_| wrong("count", "a whole number"))?),
                "seconds" => {
                    fault.seconds = Some(value.parse().map_err(|_| wrong("seconds", "a number of seconds"))?);
                }
                "after" => {
                    let value = value.strip_suffix('s').unwrap_or(value);
                    fault.after = Some(value.parse().map_err(|_| wrong("after", "a number of seconds"))?);
                }
                "scope" => {
                    fault.scope = match value {
                        "grpc" => Scope::Grpc,
                        "rest" => Scope::Rest,
                        "both" => Scope::Both,
                        _ => return Err(wrong("scope", "grpc, rest or both")),
                    }
                }
                "call" => fault.call = Some(value.to_owned()),
                "status" => {
                    fault.status = Some(value.parse().map_err(|_| wrong("status", "an HTTP status"))?)
                }
                _ => return Err(FaultError::Parameter(part.to_owned())),
            }
        }
        fault.check()?;
        Ok(fault)
    }
}
