//! What the user may do at one manager.

use crate::manager::{
    Failure,
    rest::{Rest, Right},
};

/// What a manager let the user do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rights {
    pub(super) list: bool,
    pub(super) delete: bool,
    pub(super) users: bool,
    pub(super) roles: bool,
}

/// Tries each, as the user, and changes nothing.
pub(super) async fn rights(user: &Rest) -> Result<Rights, Failure> {
    user.sign_in_patiently().await?;
    Ok(Rights {
        list: user.may(Right::List).await?,
        delete: user.may(Right::Delete).await?,
        users: user.may(Right::Users).await?,
        roles: user.may(Right::Roles).await?,
    })
}

impl Rights {
    /// Whether these are the rights it is to have, and what to do where not.
    pub(super) fn verdict(self) -> (bool, String) {
        let named = |those: [(bool, &str); 2]| {
            those.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect::<Vec<_>>().join(" and ")
        };
        let allowed = named([(self.users, "users"), (self.roles, "roles")]);
        let refused = named([(!self.list, "listing"), (!self.delete, "deleting")]);
        match (allowed.as_str(), refused.as_str()) {
            ("", "") => (true, "ready: lists and deletes schedulers, is refused users and roles".to_owned()),
            ("", refused) => (
                false,
                format!(
                    "restart it: it refuses {refused} schedulers, as it has not read the user's role since it started"
                ),
            ),
            (allowed, _) => (
                false,
                format!(
                    "restart it: it lets the user read {allowed}, by the roles that it read when it started"
                ),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_rights_are_ready() {
        for bits in 0..16u8 {
            let on = |bit: u8| bits & 1 << bit != 0;
            let rights = Rights { list: on(0), delete: on(1), users: on(2), roles: on(3) };
            let (is_ready, words) = rights.verdict();
            assert_eq!(is_ready, bits == 0b0011, "{rights:?}");
            assert_eq!(words.starts_with("restart it: "), !is_ready, "{words}");
            assert_eq!(words.contains("lets the user read users"), rights.users, "{words}");
        }
    }
}
