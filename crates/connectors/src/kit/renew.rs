//! Settings that are read again before each login, because files hold parts of them: passwords, tokens, certificates.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use warren_engine::failure::Failure;

/// How settings are read again. By default they are not: nothing of them comes from a file.
pub struct Renew<C>(Option<Arc<Source<C>>>);

struct Source<C> {
    read: Box<dyn Fn() -> Option<C> + Send + Sync>,
    /// As they were read last.
    last: Mutex<Option<C>>,
}

impl<C: Clone> Renew<C> {
    /// Reads them by calling `read`, which yields `None` where a file cannot be read now.
    pub fn by(read: impl Fn() -> Option<C> + Send + Sync + 'static) -> Renew<C> {
        Renew(Some(Arc::new(Source { read: Box::new(read), last: Mutex::default() })))
    }

    /// Whether they are read again at all.
    pub(crate) fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// The settings as they are now. A file that is missing for a moment changes nothing: they are as they were read last, at
    /// first as in `first`.
    pub fn now(&self, first: &C) -> C {
        let Some(source) = &self.0 else { return first.clone() };
        let read = (source.read)();
        let mut last = source.last.lock().unwrap_or_else(PoisonError::into_inner);
        if read.is_some() {
            *last = read;
        }
        last.as_ref().unwrap_or(first).clone()
    }
}

impl<C> Clone for Renew<C> {
    fn clone(&self) -> Self {
        Renew(self.0.clone())
    }
}

impl<C> Default for Renew<C> {
    fn default() -> Self {
        Renew(None)
    }
}

impl<C> fmt::Debug for Renew<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Renew(..)" } else { "Renew(never)" })
    }
}

/// How they are read again is no part of what settings say.
impl<C> PartialEq for Renew<C> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<C> Eq for Renew<C> {}

/// Settings that know how they are read again.
pub(crate) trait Renewed: Clone {
    /// As they are now.
    fn renewed(&self) -> Self;

    /// Whether what is made of them depends on files.
    fn depends_on_files(&self) -> bool;
}

/// What a connector makes of its settings, made again before each login.
pub(crate) struct Made<C, S> {
    config: C,
    make: fn(&C) -> Result<S, Failure>,
    last: Mutex<S>,
}

impl<C: Renewed, S: Clone> Made<C, S> {
    /// Makes it for the first time.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn new(config: &C, make: fn(&C) -> Result<S, Failure>) -> Result<Made<C, S>, Failure> {
        Ok(Made { config: config.clone(), make, last: Mutex::new(make(config)?) })
    }

    /// As the files are now. Where one cannot be read or does not fit, as it was made last.
    pub(crate) fn now(&self) -> S {
        if self.config.depends_on_files()
            && let Ok(made) = (self.make)(&self.config.renewed())
        {
            *self.held() = made;
        }
        self.last()
    }

    /// As it was made last.
    pub(crate) fn last(&self) -> S {
        self.held().clone()
    }

    fn held(&self) -> MutexGuard<'_, S> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use warren_engine::codes;
    use warren_engine::failure::FailureKind;

    use super::*;

    #[derive(Clone)]
    struct Config(String, Renew<Config>);

    impl Renewed for Config {
        fn renewed(&self) -> Config {
            self.1.now(self)
        }

        fn depends_on_files(&self) -> bool {
            self.1.is_set()
        }
    }

    fn make(config: &Config) -> Result<String, Failure> {
        let unfit = || Failure::new(FailureKind::Invalid, codes::INVALID_VALUE, "make");
        if config.0.is_empty() { Err(unfit()) } else { Ok(config.0.clone()) }
    }

    #[test]
    fn what_cannot_be_read_or_made_is_as_it_was_last() {
        let at = AtomicUsize::new(0);
        let reads = [Some("one"), None, Some("two"), Some(""), None, Some("three")];
        let read = move || {
            let read = reads[at.fetch_add(1, Ordering::Relaxed)];
            read.map(|text| Config(text.to_owned(), Renew::default()))
        };
        let made = Made::new(&Config("first".into(), Renew::by(read)), make).unwrap();
        assert_eq!(made.last(), "first");
        let now: Vec<_> = (0..6).map(|_| made.now()).collect();
        assert_eq!(now, ["one", "one", "two", "two", "two", "three"]);
    }

    #[test]
    fn settings_without_files_are_made_once() {
        let made = Made::new(&Config("first".into(), Renew::default()), make).unwrap();
        assert_eq!((made.now(), made.last()), ("first".into(), "first".into()));
    }
}
