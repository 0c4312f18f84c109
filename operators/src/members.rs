//! The surviving observations of one entity, oldest first: what `entity` and `latest` choose from.

use citycell_schemas::{EventTime, Place};
use serde::{Deserialize, Serialize};

use crate::events::{Observation, Position};
use crate::keys::{Key, Values};

/// One observation without what its entity's entry says already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) time: EventTime,
    pub(crate) position: Position,
    pub(crate) place: Place,
    pub(crate) group: Box<[u8]>,
    pub(crate) values: Values,
}

/// Members by (event time, position), which no two records share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Members(Vec<Member>);

impl Members {
    /// Adds or removes one observation. Removing what is not there changes nothing: an entity may
    /// have been forgotten before its observation was withdrawn.
    pub(crate) fn update(&mut self, observation: Observation, diff: isize) {
        let member = Member {
            time: observation.time,
            position: observation.position,
            place: observation.key.place,
            group: observation.key.group,
            values: observation.values,
        };
        match (self.0.binary_search_by_key(&member.order(), Member::order), diff > 0) {
            (Err(index), true) => self.0.insert(index, member),
            (Ok(index), false) => drop(self.0.remove(index)),
            (Ok(_), true) | (Err(_), false) => {}
        }
    }

    /// Drops the leading members for which `is_closed` holds, except the newest of them.
    pub(crate) fn keep_newest_closed(&mut self, is_closed: impl Fn(EventTime) -> bool) {
        let closed = self.0.partition_point(|member| is_closed(member.time));
        self.0.drain(..closed.saturating_sub(1));
    }

    /// The newest observation.
    pub(crate) fn newest(&self) -> Option<&Member> {
        self.0.last()
    }

    /// All of them, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.0.iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What they take in memory, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.0.len() * size_of::<Member>()
    }
}

impl Member {
    fn order(&self) -> (EventTime, Position) {
        (self.time, self.position)
    }

    /// What an entity contributes at this member's place and group.
    ///
    /// It has no id, position or time of its own, so that it changes only when the numbers do.
    pub(crate) fn contribution(
        &self,
        window_start: EventTime,
        entity: &[u8],
        values: Values,
    ) -> Observation {
        Observation {
            id: None,
            time: window_start,
            position: Position::default(),
            key: Key { window_start, place: self.place, group: self.group.clone() },
            entity: entity.into(),
            values,
        }
    }
}

/// The change from what an entity contributed to what it contributes; nothing if they are equal.
pub(crate) fn change(
    old: Option<Observation>,
    new: Option<Observation>,
) -> impl Iterator<Item = (Observation, isize)> {
    let changed = old != new;
    let old = old.filter(|_| changed).map(|old| (old, -1));
    old.into_iter().chain(new.filter(|_| changed).map(|new| (new, 1)))
}
