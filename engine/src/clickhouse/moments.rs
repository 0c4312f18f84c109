//! Which epoch the city is shown at, and who does not hold it back.
//!
//! The moment is the last epoch that every healthy pipeline has marked. A pipeline is stale when
//! others are ahead of it and it has marked nothing for a while, or when it starts behind the
//! moment; it is healthy again once it has marked the moment. So the moment never goes back.
//!
//! A version that is built beside the one that serves holds nobody back while it is far behind. Once
//! it is close the moment waits for it, since it would otherwise stay the little behind that it
//! learns of an epoch later; it takes its place with the first moment that it has marked.

use std::time::{Duration, Instant};

use citycell_schemas::Epoch;

/// All pipelines' standing.
#[derive(Debug)]
pub struct Moments {
    serving: Vec<Standing>,
    building: Vec<Building>,
    moment: Epoch,
    stale_after: Duration,
    /// Since when the moment waits for a version that is built.
    waiting_since: Option<Instant>,
    /// Until when it does not, since it waited in vain.
    no_wait_until: Option<Instant>,
    /// Whether a pipeline has caught up since the moment was said last.
    caught_up: bool,
}

/// A version whose rows readers see.
#[derive(Debug)]
struct Standing {
    name: String,
    /// Its index; none if this program cannot compute it.
    pipeline: Option<usize>,
    marked: Epoch,
    stale: bool,
    /// Since when others are ahead and it has marked nothing.
    behind_since: Option<Instant>,
}

/// A version that is built to take the place of the one that serves.
#[derive(Debug)]
struct Building {
    name: String,
    pipeline: usize,
    marked: Epoch,
}

/// A version at the start.
#[derive(Clone, Debug)]
pub struct AtStart {
    /// The pipeline's name.
    pub name: String,
    /// The version's index; none if this program cannot compute it.
    pub pipeline: Option<usize>,
    /// What it has marked.
    pub marked: Option<Epoch>,
}

/// A new moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The epoch.
    pub epoch: Epoch,
    /// The pipelines that are stale.
    pub stale: Vec<String>,
    /// The versions that serve from here on.
    pub successors: Vec<usize>,
}

/// A pipeline's standing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The pipeline's index.
    pub pipeline: usize,
    /// Whether it is stale from now on.
    pub stale: bool,
}

impl Moments {
    /// The versions that serve and those that are built, and the moment shown so far.
    #[must_use]
    pub fn new(
        serving: Vec<AtStart>,
        building: Vec<AtStart>,
        moment: Epoch,
        stale_after: Duration,
    ) -> Self {
        let standing = |start: AtStart| {
            let AtStart { name, pipeline, marked } = start;
            let marked = marked.unwrap_or_default();
            let stale = marked < moment || pipeline.is_none();
            Standing { name, pipeline, marked, stale, behind_since: None }
        };
        let being_built = |start: AtStart| {
            let AtStart { name, pipeline, marked } = start;
            Some(Building { name, pipeline: pipeline?, marked: marked.unwrap_or_default() })
        };
        Self {
            serving: serving.into_iter().map(standing).collect(),
            building: building.into_iter().filter_map(being_built).collect(),
            moment,
            stale_after,
            waiting_since: None,
            no_wait_until: None,
            caught_up: false,
        }
    }

    /// The names of the stale pipelines.
    pub fn stale(&self) -> impl Iterator<Item = &str> {
        let stale = self.serving.iter().filter(|standing| standing.stale);
        stale.map(|standing| standing.name.as_str())
    }

    /// Which versions, by index, are stale.
    pub fn stale_indices(&self) -> impl Iterator<Item = usize> {
        let stale = self.serving.iter().filter(|standing| standing.stale);
        stale.filter_map(|standing| standing.pipeline)
    }

    /// A version has marked an epoch.
    pub fn marked(&mut self, pipeline: usize, epoch: Epoch) {
        let mut serving = self.serving.iter_mut();
        let standing = serving.find(|standing| standing.pipeline == Some(pipeline));
        if let Some(standing) = standing.filter(|standing| standing.marked < epoch) {
            standing.marked = epoch;
            standing.behind_since = None;
        }
        let mut building = self.building.iter_mut();
        if let Some(building) = building.find(|building| building.pipeline == pipeline) {
            building.marked = epoch.max(building.marked);
        }
    }

    /// Judges who is stale.
    pub fn turns(&mut self, now: Instant) -> Vec<Turn> {
        let front = self.serving.iter().map(|standing| standing.marked).max();
        let mut turns = Vec::new();
        for standing in &mut self.serving {
            let Some(pipeline) = standing.pipeline else { continue };
            let stale = if standing.stale {
                standing.marked < self.moment
            } else if Some(standing.marked) < front {
                let since = *standing.behind_since.get_or_insert(now);
                now.duration_since(since) >= self.stale_after
            } else {
                standing.behind_since = None;
                false
            };
            if stale != standing.stale {
                standing.stale = stale;
                standing.behind_since = None;
                self.caught_up |= !stale;
                turns.push(Turn { pipeline, stale });
            }
        }
        turns
    }

    /// The new moment, if there is one; the same again if a pipeline has caught up with it. A
    /// version that has marked it serves from it on, never from one that was shown before.
    pub fn advance(&mut self, now: Instant) -> Option<Moment> {
        let healthy = self.serving.iter().filter(|standing| !standing.stale);
        let built = self.building.iter().map(|building| building.marked);
        let built = built.filter(|marked| *marked > self.moment).min();
        // If nobody serves who can, the new versions alone go on.
        let epoch = healthy.map(|standing| standing.marked).chain(built).min()?;
        if epoch > self.moment && built.is_none() && self.waits_for_new_versions(now) {
            return None;
        }
        if epoch <= self.moment && !self.caught_up {
            return None;
        }
        self.caught_up = false;
        let successors = if epoch > self.moment { self.succeed(epoch) } else { Vec::new() };
        let epoch = epoch.max(self.moment);
        self.moment = epoch;
        Some(Moment { epoch, stale: self.stale().map(str::to_owned).collect(), successors })
    }

    /// Whether a version that is built is about to reach the moment; not for long, and not again soon
    /// after it was waited for in vain.
    fn waits_for_new_versions(&mut self, now: Instant) -> bool {
        let patience = self.stale_after / 2;
        let moment = self.moment.0;
        let is_close = |building: &Building| {
            Duration::from_millis(moment.saturating_sub(building.marked.0)) <= patience
        };
        if !self.building.iter().any(is_close) || self.no_wait_until.is_some_and(|end| now < end) {
            self.waiting_since = None;
            return false;
        }
        let waits = now.duration_since(*self.waiting_since.get_or_insert(now)) < patience;
        if !waits {
            self.waiting_since = None;
            self.no_wait_until = Some(now + 2 * patience);
        }
        waits
    }

    /// Puts the versions that have marked `epoch` into their places.
    fn succeed(&mut self, epoch: Epoch) -> Vec<usize> {
        let ready = self.building.extract_if(.., |building| building.marked >= epoch);
        let mut successors = Vec::new();
        for Building { name, pipeline, marked } in ready {
            successors.push(pipeline);
            self.serving.retain(|standing| standing.name != name);
            let pipeline = Some(pipeline);
            self.serving.push(Standing {
                name,
                pipeline,
                marked,
                stale: false,
                behind_since: None,
            });
        }
        successors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(10);
    const ONE: usize = 0;
    const OTHER: usize = 1;

    fn two(one: u64, other: u64, moment: u64) -> Moments {
        let marked = |epoch| (epoch > 0).then_some(Epoch(epoch));
        let at_start = |name: &str, pipeline, epoch| AtStart {
            name: name.to_owned(),
            pipeline: Some(pipeline),
            marked: marked(epoch),
        };
        let serving = vec![at_start("one", ONE, one), at_start("other", OTHER, other)];
        Moments::new(serving, Vec::new(), Epoch(moment), AFTER)
    }

    fn epoch(moment: Option<Moment>) -> Option<u64> {
        moment.map(|moment| moment.epoch.0)
    }

    #[test]
    fn the_moment_is_what_all_have_marked() {
        let mut moments = two(0, 0, 0);
        moments.marked(ONE, Epoch(5));
        assert_eq!(epoch(moments.advance(Instant::now())), None);
        moments.marked(OTHER, Epoch(4));
        assert_eq!(epoch(moments.advance(Instant::now())), Some(4));
        assert_eq!(epoch(moments.advance(Instant::now())), None);
    }

    #[test]
    fn one_that_cannot_write_is_left_behind_and_comes_back_when_it_has_caught_up() {
        let mut moments = two(4, 4, 4);
        let start = Instant::now();
        moments.marked(ONE, Epoch(5));
        assert_eq!(moments.turns(start), []);
        assert_eq!(moments.turns(start + AFTER / 2), []);
        assert_eq!(moments.turns(start + AFTER), [Turn { pipeline: 1, stale: true }]);
        let moment = moments.advance(Instant::now()).unwrap();
        assert_eq!((moment.epoch, moment.stale), (Epoch(5), vec!["other".to_owned()]));
        moments.marked(ONE, Epoch(9));
        assert_eq!(epoch(moments.advance(Instant::now())), Some(9));
        moments.marked(OTHER, Epoch(8));
        assert_eq!(moments.turns(start + 2 * AFTER), []);
        moments.marked(OTHER, Epoch(9));
        assert_eq!(moments.turns(start + 2 * AFTER), [Turn { pipeline: 1, stale: false }]);
        let again = Moment { epoch: Epoch(9), stale: Vec::new(), successors: Vec::new() };
        assert_eq!(
            moments.advance(Instant::now()),
            Some(again),
            "readers see now what it has caught up with"
        );
        assert_eq!(moments.advance(Instant::now()), None);
    }

    #[test]
    fn one_that_is_slow_but_goes_on_is_not_stale() {
        let mut moments = two(4, 4, 4);
        let start = Instant::now();
        for step in 1..9u32 {
            moments.marked(ONE, Epoch(5 + u64::from(step)));
            assert_eq!(moments.turns(start + step * AFTER / 2), []);
            moments.marked(OTHER, Epoch(4 + u64::from(step)));
        }
    }

    #[test]
    fn when_nobody_can_write_nobody_is_stale() {
        let mut moments = two(4, 4, 4);
        assert_eq!(moments.turns(Instant::now() + 100 * AFTER), []);
        assert_eq!(moments.advance(Instant::now()), None);
    }

    /// A pipeline whose first version serves and has marked `serving`, while another has marked
    /// `building`.
    fn two_versions(serving: u64, building: u64) -> Moments {
        let start = |pipeline, marked| AtStart {
            name: "one".to_owned(),
            pipeline: Some(pipeline),
            marked: Some(Epoch(marked)),
        };
        let (serves, built) = (vec![start(0, serving)], vec![start(1, building)]);
        Moments::new(serves, built, Epoch(serving), AFTER)
    }

    #[test]
    fn a_new_version_serves_from_the_first_moment_that_it_has_marked() {
        let now = Instant::now();
        let mut moments = two_versions(100_000, 2);
        moments.marked(0, Epoch(100_006));
        moments.marked(1, Epoch(50_000));
        assert_eq!(moments.advance(now).unwrap().successors, [0; 0], "it is far behind");
        moments.marked(0, Epoch(100_007));
        moments.marked(1, Epoch(100_006));
        assert_eq!(moments.advance(now), None, "the version before was shown at 100,006");
        moments.marked(0, Epoch(100_009));
        moments.marked(1, Epoch(100_008));
        let moment = moments.advance(now).unwrap();
        assert_eq!((moment.epoch, moment.successors), (Epoch(100_008), vec![1]));
        moments.marked(0, Epoch(100_010));
        assert_eq!(moments.advance(now), None, "only the new version holds the moment back");
    }

    #[test]
    fn the_moment_waits_for_a_new_version_that_is_close_but_not_for_ever() {
        let now = Instant::now();
        let mut moments = two_versions(100_000, 99_000);
        moments.marked(0, Epoch(100_001));
        assert_eq!(moments.advance(now), None);
        assert_eq!(moments.advance(now + AFTER / 4), None);
        assert_eq!(epoch(moments.advance(now + AFTER / 2)), Some(100_001));
        moments.marked(0, Epoch(100_002));
        assert_eq!(epoch(moments.advance(now + AFTER)), Some(100_002), "it was waited for in vain");
        moments.marked(0, Epoch(100_003));
        assert_eq!(moments.advance(now + 2 * AFTER), None, "now it may be waited for again");
    }

    #[test]
    fn of_a_version_that_cannot_run_the_last_is_shown_until_the_new_one_has_caught_up() {
        let start = |pipeline, marked| AtStart {
            name: "one".to_owned(),
            pipeline,
            marked: Some(Epoch(marked)),
        };
        let mut moments =
            Moments::new(vec![start(None, 5)], vec![start(Some(0), 1)], Epoch(5), AFTER);
        assert_eq!(moments.stale().collect::<Vec<_>>(), ["one"]);
        moments.marked(0, Epoch(5));
        assert_eq!(
            (moments.turns(Instant::now()), moments.advance(Instant::now())),
            (Vec::new(), None)
        );
        moments.marked(0, Epoch(6));
        let moment = moments.advance(Instant::now()).unwrap();
        assert_eq!((moment.epoch, moment.stale, moment.successors), (Epoch(6), vec![], vec![0]));
    }

    #[test]
    fn one_that_starts_behind_the_moment_does_not_take_it_back() {
        let mut moments = two(9, 2, 9);
        assert_eq!(moments.stale().collect::<Vec<_>>(), ["other"]);
        moments.marked(ONE, Epoch(10));
        assert_eq!(epoch(moments.advance(Instant::now())), Some(10));
    }
}
