//! Sealing what must not be read by whoever gets hold of the file: AES-256-GCM under a key of the state folder.
//!
//! A sealed value is: the version, 1 (1 byte), a random nonce (12), the cipher text with its tag. What it is bound to (an id, a
//! name) is authenticated and not stored, so a value moved to another place does not open.
//!
//! The key stands in `hub.key` beside the file, readable by this user alone, as 64 hexadecimal digits. Who may read both may
//! read the secrets; who got only the file may not.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

use crate::database::Fault;

const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;

/// Seals and opens values.
pub(super) struct Seal {
    key: LessSafeKey,
    random: SystemRandom,
}

impl Seal {
    /// The seal of a key file, which is made where it is missing. `made`: whether it may be, since nothing is sealed yet.
    pub fn open(path: &Path, may_make: bool) -> Result<Seal, Fault> {
        if let Some(seal) = Seal::read(path)? {
            return Ok(seal);
        }
        if !may_make {
            return Err(missing());
        }
        make(path, &SystemRandom::new())?;
        Seal::read(path)?.ok_or(Fault::Damaged("its key file `hub.key` vanished"))
    }

    /// The seal of a key file; `None` where it is missing.
    pub fn read(path: &Path) -> Result<Option<Seal>, Fault> {
        let Some(key) = read(path)? else { return Ok(None) };
        let unbound = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| Fault::Damaged("its key is no key"))?;
        Ok(Some(Seal { key: LessSafeKey::new(unbound), random: SystemRandom::new() }))
    }

    /// Seals a value, bound to something.
    pub fn seal(&self, bound_to: &[u8], value: &[u8]) -> Result<Vec<u8>, Fault> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| io::Error::other("the system gives no random numbers"))?;
        let mut sealed = value.to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(unique, Aad::from(bound_to), &mut sealed)
            .map_err(|_| io::Error::other("the value is too large to be sealed"))?;
        Ok([&[VERSION][..], &nonce, &sealed].concat())
    }

    /// Opens a sealed value.
    pub fn unseal(&self, bound_to: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Fault> {
        let wrong = || Fault::Damaged("a sealed value does not open with the key in `hub.key`");
        let (version, rest) = sealed.split_first().ok_or_else(wrong)?;
        if *version != VERSION {
            return Err(Fault::TooNew { found: i64::from(*version), known: i64::from(VERSION) });
        }
        let (nonce, text) = rest.split_at_checked(NONCE_LEN).ok_or_else(wrong)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| wrong())?;
        let mut text = text.to_vec();
        let opened = self.key.open_in_place(nonce, Aad::from(bound_to), &mut text).map_err(|_| wrong())?;
        Ok(opened.to_vec())
    }
}

/// The fault of a key file that is not there although something is sealed with it.
pub(super) fn missing() -> Fault {
    Fault::Damaged("its key file `hub.key` is missing: put it back from a backup")
}

fn read(path: &Path) -> Result<Option<[u8; KEY_BYTES]>, Fault> {
    let mut text = String::new();
    match OpenOptions::new().read(true).open(path) {
        Ok(file) => file.take(200).read_to_string(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let digits = text.trim().as_bytes();
    let mut key = [0; KEY_BYTES];
    let wrong = Fault::Damaged("its key file `hub.key` does not hold 64 hexadecimal digits");
    if digits.len() != 2 * KEY_BYTES {
        return Err(wrong);
    }
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else { return Err(wrong) };
        *byte = (high * 16 + low) as u8;
    }
    Ok(Some(key))
}

/// Makes the key file whole or not at all; one that is there stays.
fn make(path: &Path, random: &SystemRandom) -> Result<(), Fault> {
    let mut key = [0; KEY_BYTES];
    random.fill(&mut key).map_err(|_| io::Error::other("the system gives no random numbers"))?;
    let text = key.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    let half = path.with_extension(format!("key.{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&half)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    let linked = fs::hard_link(&half, path);
    fs::remove_file(&half)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    if let Some(folder) = path.parent() {
        fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}
