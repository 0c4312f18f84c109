//! The master key, and the keys of days that it wraps.

use std::fmt;

use aes_gcm_siv::{
    Aes256GcmSiv, Key, KeyInit, Nonce,
    aead::{Aead, Generate, Payload},
};

use crate::secret::Secret;

/// Bytes of a nonce.
const NONCE_BYTES: usize = 12;

/// Wraps the keys of days. Whoever has it and their place reads everything that is not destroyed.
#[derive(Clone)]
pub struct MasterKey(Aes256GcmSiv);

/// A master key that is none: its operators' to correct.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a master key is 64 hexadecimal digits, as `openssl rand -hex 32` prints them")]
pub struct MasterKeyError;

/// Seals the records of one day.
pub(super) struct DataKey(pub(super) Aes256GcmSiv);

impl MasterKey {
    /// The key that a secret's 64 hexadecimal digits write.
    ///
    /// # Errors
    /// Anything else.
    pub fn new(secret: &Secret) -> Result<Self, MasterKeyError> {
        let mut key = Key::<Aes256GcmSiv>::default();
        hex::decode_to_slice(secret.reveal(), &mut key).map_err(|_| MasterKeyError)?;
        Ok(Self(Aes256GcmSiv::new(&key)))
    }

    /// The key of `day`, wrapped.
    pub(super) fn wrap(&self, day: &str, key: &Key<Aes256GcmSiv>) -> String {
        let nonce = Nonce::generate();
        let message = Payload { msg: key.as_slice(), aad: day.as_bytes() };
        let wrapped = self.0.encrypt(&nonce, message).expect("a key is short");
        hex::encode([nonce.as_slice(), &wrapped].concat())
    }

    /// The key of `day`; none if it was wrapped with another master key, or for another day.
    pub(super) fn unwrap(&self, day: &str, wrapped: &str) -> Option<Key<Aes256GcmSiv>> {
        let wrapped = hex::decode(wrapped).ok()?;
        let (nonce, wrapped) = wrapped.split_at_checked(NONCE_BYTES)?;
        let nonce = Nonce::try_from(nonce).ok()?;
        let message = Payload { msg: wrapped, aad: day.as_bytes() };
        let key = self.0.decrypt(&nonce, message).ok()?;
        Key::<Aes256GcmSiv>::try_from(key.as_slice()).ok()
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MasterKey(hidden)")
    }
}

impl DataKey {
    /// A new key, and its bytes.
    pub(super) fn generate() -> (Self, Key<Aes256GcmSiv>) {
        let key = Key::<Aes256GcmSiv>::generate();
        (Self::of(&key), key)
    }

    pub(super) fn of(key: &Key<Aes256GcmSiv>) -> Self {
        Self(Aes256GcmSiv::new(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_unwrapped_by_its_master_key_and_for_its_day_only() {
        let master = MasterKey::new(&Secret::new("0f".repeat(32))).expect("good");
        let (_, key) = DataKey::generate();
        let wrapped = master.wrap("2026-11-24", &key);
        assert_eq!(master.unwrap("2026-11-24", &wrapped), Some(key));
        assert_ne!(master.wrap("2026-11-24", &key), wrapped);
        assert_eq!(master.unwrap("2026-11-25", &wrapped), None);
        let other = MasterKey::new(&Secret::new("0e".repeat(32))).expect("good");
        assert_eq!(other.unwrap("2026-11-24", &wrapped), None);
        for damaged in ["", "00", "xy", &wrapped[2..]] {
            assert_eq!(master.unwrap("2026-11-24", damaged), None);
        }
        assert_eq!(format!("{master:?}"), "MasterKey(hidden)");
        for bad in ["", "0f", &"0g".repeat(32), &"0f".repeat(33)] {
            assert_eq!(MasterKey::new(&Secret::new(bad)).err(), Some(MasterKeyError));
        }
    }
}
