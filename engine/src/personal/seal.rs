//! Sealing what was taken out of a record, and opening it again.
//!
//! AES-256-GCM-SIV (RFC 8452). The nonce is the record's place in its partition, the topic and the
//! table are authenticated beside it: so the same record is sealed to the same bytes after every
//! restart, and a row that is sent twice stays one row. Plain GCM would not do: several pipelines
//! reject one record with different words, and another schema takes out other parts, so that a place
//! alone does not name one text; two texts under one nonce would give both away. With SIV they show
//! no more than that they differ.

use aes_gcm_siv::{
    Aes256GcmSiv, Nonce,
    aead::{Aead, Payload},
};
use serde::{Deserialize, Serialize};

use super::{Cut, key::DataKey};

/// What stands where something was taken out whose key was destroyed already.
pub(super) const ERASED: &[u8] = &[0];

/// The first byte of what is sealed: this form.
const FORM: u8 = 1;

/// Where a record is kept.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// `archive` or `rejects`.
    pub table: &'static str,
    /// The Kafka topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// What was taken out of a record.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sealed<'a> {
    /// Of its payload.
    #[serde(borrow)]
    pub(super) cuts: Vec<Cut<'a>>,
    /// A reject's detail, if it may quote what is hidden.
    pub(super) detail: Option<&'a str>,
}

impl Place<'_> {
    fn nonce(&self) -> Nonce {
        let mut nonce = Nonce::default();
        nonce[..4].copy_from_slice(&self.partition.to_le_bytes());
        nonce[4..].copy_from_slice(&self.offset.to_le_bytes());
        nonce
    }

    fn beside(&self) -> Vec<u8> {
        [self.table.as_bytes(), b"\0", self.topic.as_bytes()].concat()
    }
}

impl DataKey {
    /// Seals what was taken out of the record at `place`.
    ///
    /// # Panics
    /// Never on what Kafka delivers: the limit is 64 GiB.
    pub(super) fn seal(&self, place: Place<'_>, content: &Sealed<'_>) -> Vec<u8> {
        let content = postcard::to_stdvec(content).expect("memory takes all bytes");
        let message = Payload { msg: &content, aad: &place.beside() };
        let sealed = self.cipher().encrypt(&place.nonce(), message).expect("less than 64 GiB");
        [&[FORM], sealed.as_slice()].concat()
    }

    /// What was sealed for `place`, as postcard wrote it; none if it was sealed under another key or
    /// for another place, or is damaged.
    pub(super) fn open(&self, place: Place<'_>, sealed: &[u8]) -> Option<Vec<u8>> {
        let sealed = sealed.strip_prefix(&[FORM])?;
        let message = Payload { msg: sealed, aad: &place.beside() };
        self.cipher().decrypt(&place.nonce(), message).ok()
    }

    fn cipher(&self) -> &Aes256GcmSiv {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'_> = Place { table: "archive", topic: "t", partition: 1, offset: 7 };

    #[test]
    fn a_record_is_sealed_to_the_same_bytes_and_opened_at_its_place_only() {
        let (key, _) = DataKey::generate();
        let content = Sealed { cuts: Vec::new(), detail: Some("Li") };
        let sealed = key.seal(PLACE, &content);
        assert_eq!(sealed, key.seal(PLACE, &content));
        let opened = key.open(PLACE, &sealed).expect("its key and place");
        assert_eq!(postcard::from_bytes::<Sealed<'_>>(&opened).expect("what was sealed"), content);

        let elsewhere = [
            Place { table: "rejects", ..PLACE },
            Place { topic: "u", ..PLACE },
            Place { partition: 2, ..PLACE },
            Place { offset: 8, ..PLACE },
        ];
        for place in elsewhere {
            assert_ne!(key.seal(place, &content), sealed);
            assert_eq!(key.open(place, &sealed), None);
        }
        assert_eq!(DataKey::generate().0.open(PLACE, &sealed), None);
        let mut damaged = sealed;
        *damaged.last_mut().expect("bytes") ^= 1;
        assert_eq!(key.open(PLACE, &damaged), None);
        assert_eq!(key.open(PLACE, ERASED), None);
    }
}
