//! Users and roles: signing up, which asks for no token, and what takes one of `root`.

use std::sync::Arc;

use axum::{
    extract::{Path, RawQuery, State as Shared},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Refusal, query, row};
use crate::mock::{
    node::Node,
    table::{Account, Rule, TableError},
};

/// What is wrong with a field, in the words of the manager's validator.
fn failed(place: &str, field: &str, tag: &str) -> Refusal {
    Refusal::Wrong(format!(
        "Key: '{place}.{field}' Error:Field validation for '{field}' failed on the '{tag}' tag"
    ))
}

fn body<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(bytes).map_err(|e| Refusal::Wrong(e.to_string()))
}

fn user_id(text: &str) -> Result<u64, Refusal> {
    let id = text
        .parse::<u64>()
        .map_err(|_| Refusal::Wrong(format!("strconv.ParseUint: parsing {text:?}: invalid syntax")))?;
    if id == 0 { Err(failed("UserParams", "ID", "required")) } else { Ok(id) }
}

/// A user as REST shows it: no password, nor its hash.
fn shown(node: &Node, user: &Account) -> Value {
    let at = row::Shown::by(node).time(user.created_at);
    json!({
        "id": user.id, "created_at": at, "updated_at": at, "is_del": 0, "email": user.email, "name": user.name, "avatar": "",
        "phone": "", "state": "enable", "location": "", "bio": "", "configs": null,
    })
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SignUp {
    name: String,
    password: String,
    email: String,
}

/// The length that a field must have, in characters.
fn bounded(field: &str, text: &str, least: usize, most: usize) -> Result<(), Refusal> {
    let tag = match text.chars().count() {
        0 => "required",
        n if n < least => "min",
        n if n > most => "max",
        _ => return Ok(()),
    };
    Err(failed("SignUpRequest.SignInRequest", field, tag))
}

/// What the database refuses as a duplicate is a conflict.
fn refused(error: TableError) -> Refusal {
    match error {
        TableError::Duplicate(_) => Refusal::Conflict,
        other => other.into(),
    }
}

/// Signs a user up, who gets the role `guest`.
pub(super) async fn sign_up(
    Shared(node): Shared<Arc<Node>>,
    bytes: axum::body::Bytes,
) -> Result<axum::Json<Value>, Refusal> {
    let asked: SignUp = body(&bytes)?;
    bounded("Name", &asked.name, 3, 10)?;
    bounded("Password", &asked.password, 8, 20)?;
    if asked.email.is_empty() {
        return Err(failed("SignUpRequest", "Email", "required"));
    }
    if !asked.email.split_once('@').is_some_and(|(local, domain)| !local.is_empty() && domain.contains('.')) {
        return Err(failed("SignUpRequest", "Email", "email"));
    }
    let user = node.sign_up(&asked.name, &asked.password, &asked.email).map_err(refused)?;
    Ok(axum::Json(shown(&node, &user)))
}

/// The users of a name and an email, or all, page by page.
pub(super) async fn users(
    Shared(node): Shared<Arc<Node>>,
    RawQuery(text): RawQuery,
) -> Result<axum::Json<Vec<Value>>, Refusal> {
    let asked = query::pairs(text.as_deref().unwrap_or(""));
    let given = |name: &str| asked.iter().rfind(|(key, value)| key == name && !value.is_empty());
    let number = |name: &str, usual: u64| match given(name) {
        None => Ok(usual),
        Some((_, value)) => query::number(value).map(|n| if n == 0 { usual } else { n }),
    };
    let page = number("page", 1).map_err(Refusal::Wrong)?;
    let per_page = number("per_page", query::PER_PAGE).map_err(Refusal::Wrong)?;
    if per_page > query::MAX_PER_PAGE {
        return Err(failed("GetUsersQuery", "PerPage", "lte"));
    }
    let named = given("name").map(|(_, name)| node.database.user(name)).transpose()?;
    let mut found = match named {
        Some(user) => Vec::from_iter(user),
        None => node.database.users()?,
    };
    if let Some((_, email)) = given("email") {
        found.retain(|user| user.email == *email);
    }
    let skip = usize::try_from((page - 1).saturating_mul(per_page)).unwrap_or(usize::MAX);
    let take = usize::try_from(per_page).unwrap_or(usize::MAX);
    Ok(axum::Json(found.iter().skip(skip).take(take).map(|user| shown(&node, user)).collect()))
}

/// One user.
pub(super) async fn user(
    Shared(node): Shared<Arc<Node>>,
    Path(text): Path<String>,
) -> Result<axum::Json<Value>, Refusal> {
    let id = user_id(&text)?;
    let user = node.database.users()?.into_iter().find(|user| user.id == id).ok_or(Refusal::NotFound)?;
    Ok(axum::Json(shown(&node, &user)))
}

/// The roles of a user, whether there is one or not.
pub(super) async fn roles_of(
    Shared(node): Shared<Arc<Node>>,
    Path(text): Path<String>,
) -> Result<axum::Json<Vec<String>>, Refusal> {
    Ok(axum::Json(node.enforcer().roles_of(user_id(&text)?)))
}

/// 200 without a body where something was changed; what else it is where not.
fn changed(changed: bool, else_: StatusCode) -> Response {
    if changed { StatusCode::OK.into_response() } else { else_.into_response() }
}

/// Gives a user a role, whether there are such or not.
pub(super) async fn give(
    Shared(node): Shared<Arc<Node>>,
    Path((text, role)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let user = user_id(&text)?;
    let added = node.add_rule(Rule::Member { user, role }).map_err(refused)?;
    Ok(changed(added, StatusCode::CONFLICT))
}

/// Takes a role from a user.
pub(super) async fn take(
    Shared(node): Shared<Arc<Node>>,
    Path((text, role)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let unwanted = Rule::Member { user: user_id(&text)?, role };
    Ok(changed(node.remove_rules(|rule| *rule == unwanted)?, StatusCode::NOT_FOUND))
}

#[derive(Deserialize)]
struct Permission {
    object: String,
    action: String,
}

#[derive(Deserialize)]
struct NewRole {
    #[serde(default)]
    role: String,
    permissions: Option<Vec<Permission>>,
}

/// Makes a role, or gives one more permissions: whatever they are, and whether it has them or not.
pub(super) async fn make_role(
    Shared(node): Shared<Arc<Node>>,
    bytes: axum::body::Bytes,
) -> Result<StatusCode, Refusal> {
    let asked: NewRole = body(&bytes)?;
    if asked.role.is_empty() {
        return Err(failed("CreateRoleRequest", "Role", "required"));
    }
    let permissions =
        asked.permissions.ok_or_else(|| failed("CreateRoleRequest", "Permissions", "required"))?;
    for Permission { object, action } in permissions {
        node.add_rule(Rule::Permission { role: asked.role.clone(), object, action }).map_err(refused)?;
    }
    Ok(StatusCode::OK)
}

/// The names of all roles.
pub(super) async fn roles(Shared(node): Shared<Arc<Node>>) -> axum::Json<Vec<String>> {
    axum::Json(node.enforcer().roles())
}

/// The permissions of a role, whether there is one or not.
pub(super) async fn role(
    Shared(node): Shared<Arc<Node>>,
    Path(role): Path<String>,
) -> axum::Json<Vec<[String; 3]>> {
    axum::Json(node.enforcer().permissions(&role))
}

/// Removes a role, and takes it from all who have it.
pub(super) async fn remove_role(
    Shared(node): Shared<Arc<Node>>,
    Path(unwanted): Path<String>,
) -> Result<Response, Refusal> {
    let removed = node.remove_rules(|rule| match rule {
        Rule::Permission { role, .. } | Rule::Member { role, .. } => *role == unwanted,
    })?;
    Ok(changed(removed, StatusCode::NOT_FOUND))
}
