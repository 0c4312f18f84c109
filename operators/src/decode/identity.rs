//! An event's identity as 16 bytes.
//!
//! SipHash-1-3 with 128 bits of output and the key 0, over the parts with the byte FF after each (it
//! occurs in no UTF-8, so parts cannot run into each other). State and bindings outlive programs and
//! machines, so this never changes: a test holds it to fixed values.

use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128 as _, SipHasher13};

use crate::events::EventId;

/// The identity of the event that these parts name: a CloudEvent's source and id.
#[must_use]
pub fn event_id(parts: &[&[u8]]) -> EventId {
    let mut hasher = IdHasher::default();
    parts.iter().for_each(|part| hasher.part(part));
    hasher.finish()
}

/// An identity in the making.
pub(crate) struct IdHasher(SipHasher13);

impl Default for IdHasher {
    fn default() -> Self {
        Self(SipHasher13::new_with_keys(0, 0))
    }
}

impl IdHasher {
    pub(crate) fn part(&mut self, part: &[u8]) {
        self.0.write(part);
        self.0.write(&[0xff]);
    }

    pub(crate) fn finish(&self) -> EventId {
        EventId(self.0.finish128().as_u128())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_never_change() {
        let id = event_id(&[b"//city/sensors", b"42"]);
        assert_eq!(id.0, 0xf49a_e386_3858_b609_6dde_212a_c00a_87e7);
        assert_eq!(event_id(&[]).0, 0xb91c_5ed0_31fb_3303_2134_935d_61d9_b40d);
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(event_id(&[b"ab", b"c"]), event_id(&[b"a", b"bc"]));
        assert_ne!(event_id(&[b"ab"]), event_id(&[b"ab", b""]));
    }
}
