//! Users in memory: names with passwords, tags, and what they may do.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;

use async_trait::async_trait;

use crate::codes;
use crate::failure::{Failure, FailureKind};
use crate::hub::ports::{Right, User, Users};
use crate::hub::resource::Resource;
use crate::pipeline::outside::Hidden;

/// Users in memory.
#[derive(Debug, Default)]
pub struct MemoryUsers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    users: BTreeMap<String, (String, User)>,
    /// Who may do what: user, right, vhost, beginning of the resource's name.
    rights: Vec<(String, Right, String, String)>,
    away: bool,
}

impl MemoryUsers {
    /// Adds a user who may do nothing yet.
    pub fn add(&self, name: &str, password: &str, tags: &[&str]) {
        let user = User { name: name.to_owned(), tags: tags.iter().map(|tag| (*tag).to_owned()).collect() };
        self.lock().users.insert(name.to_owned(), (password.to_owned(), user));
    }

    /// Lets a user do that with all of a vhost whose name begins so.
    pub fn grant(&self, name: &str, right: Right, vhost: &str, prefix: &str) {
        self.lock().rights.push((name.to_owned(), right, vhost.to_owned(), prefix.to_owned()));
    }

    /// Lets a user do everything in a vhost.
    pub fn grant_all(&self, name: &str, vhost: &str) {
        for right in [Right::Configure, Right::Write, Right::Read] {
            self.grant(name, right, vhost, "");
        }
    }

    /// Whether nobody can be asked.
    pub fn away(&self, away: bool) {
        self.lock().away = away;
    }

    fn asked(&self) -> Result<std::sync::MutexGuard<'_, State>, Failure> {
        let state = self.lock();
        if state.away {
            return Err(Failure::new(FailureKind::Disconnected, codes::BROKER_UNREACHABLE, "ask for a user"));
        }
        Ok(state)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[async_trait]
impl Users for MemoryUsers {
    async fn login(&self, _from: IpAddr, name: &str, password: &Hidden) -> Result<Option<User>, Failure> {
        let state = self.asked()?;
        Ok(state.users.get(name).filter(|(own, _)| *own == password.0).map(|(_, user)| user.clone()))
    }

    async fn named(&self, name: &str) -> Result<Option<User>, Failure> {
        Ok(self.asked()?.users.get(name).map(|(_, user)| user.clone()))
    }

    async fn may(&self, user: &User, right: Right, resource: &Resource) -> Result<bool, Failure> {
        let state = self.asked()?;
        Ok(state.rights.iter().any(|(name, granted, vhost, prefix)| {
            *name == user.name
                && *granted == right
                && *vhost == resource.vhost
                && resource.name.starts_with(prefix.as_str())
        }))
    }
}
