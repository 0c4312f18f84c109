//! Which epoch the city is shown at, and who does not hold it back.
//!
//! The moment is the last epoch that every healthy pipeline has marked. A pipeline is stale when
//! others are ahead of it and it has marked nothing for a while, or when it starts behind the
//! moment; it is healthy again once it has marked the moment. So the moment never goes back.

use std::time::{Duration, Instant};

use citycell_schemas::Epoch;

/// All pipelines' standing.
#[derive(Debug)]
pub struct Moments {
    pipelines: Vec<Standing>,
    moment: Epoch,
    stale_after: Duration,
    /// Whether a pipeline has caught up since the moment was said last.
    caught_up: bool,
}

#[derive(Debug)]
struct Standing {
    name: String,
    marked: Epoch,
    stale: bool,
    /// Since when others are ahead and it has marked nothing.
    behind_since: Option<Instant>,
}

/// A new moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The epoch.
    pub epoch: Epoch,
    /// The pipelines that are stale.
    pub stale: Vec<String>,
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
    /// The pipelines with what they have marked, and the moment shown so far.
    #[must_use]
    pub fn new(
        pipelines: impl IntoIterator<Item = (String, Option<Epoch>)>,
        moment: Epoch,
        stale_after: Duration,
    ) -> Self {
        let standing = |(name, marked): (String, Option<Epoch>)| {
            let marked = marked.unwrap_or_default();
            Standing { name, marked, stale: marked < moment, behind_since: None }
        };
        let pipelines = pipelines.into_iter().map(standing).collect();
        Self { pipelines, moment, stale_after, caught_up: false }
    }

    /// The names of the stale pipelines.
    pub fn stale(&self) -> impl Iterator<Item = &str> {
        let stale = self.pipelines.iter().filter(|pipeline| pipeline.stale);
        stale.map(|pipeline| pipeline.name.as_str())
    }

    /// Which pipelines, by index, are stale.
    pub fn stale_indices(&self) -> impl Iterator<Item = usize> {
        let stale = self.pipelines.iter().enumerate().filter(|(_, pipeline)| pipeline.stale);
        stale.map(|(index, _)| index)
    }

    /// A pipeline has marked an epoch.
    pub fn marked(&mut self, pipeline: &str, epoch: Epoch) {
        let named = self.pipelines.iter_mut().find(|standing| standing.name == pipeline);
        if let Some(standing) = named.filter(|standing| standing.marked < epoch) {
            standing.marked = epoch;
            standing.behind_since = None;
        }
    }

    /// Judges who is stale.
    pub fn turns(&mut self, now: Instant) -> Vec<Turn> {
        let front = self.pipelines.iter().map(|standing| standing.marked).max();
        let mut turns = Vec::new();
        for (pipeline, standing) in self.pipelines.iter_mut().enumerate() {
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

    /// The new moment, if there is one; the same again if a pipeline has caught up with it.
    pub fn advance(&mut self) -> Option<Moment> {
        let healthy = self.pipelines.iter().filter(|standing| !standing.stale);
        let epoch = healthy.map(|standing| standing.marked).min()?;
        if epoch <= self.moment && !self.caught_up {
            return None;
        }
        self.caught_up = false;
        let epoch = epoch.max(self.moment);
        self.moment = epoch;
        Some(Moment { epoch, stale: self.stale().map(str::to_owned).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(10);

    fn two(one: u64, other: u64, moment: u64) -> Moments {
        let marked = |epoch| (epoch > 0).then_some(Epoch(epoch));
        let pipelines = [("one".to_owned(), marked(one)), ("other".to_owned(), marked(other))];
        Moments::new(pipelines, Epoch(moment), AFTER)
    }

    fn epoch(moment: Option<Moment>) -> Option<u64> {
        moment.map(|moment| moment.epoch.0)
    }

    #[test]
    fn the_moment_is_what_all_have_marked() {
        let mut moments = two(0, 0, 0);
        moments.marked("one", Epoch(5));
        assert_eq!(epoch(moments.advance()), None);
        moments.marked("other", Epoch(4));
        assert_eq!(epoch(moments.advance()), Some(4));
        assert_eq!(epoch(moments.advance()), None);
    }

    #[test]
    fn one_that_cannot_write_is_left_behind_and_comes_back_when_it_has_caught_up() {
        let mut moments = two(4, 4, 4);
        let start = Instant::now();
        moments.marked("one", Epoch(5));
        assert_eq!(moments.turns(start), []);
        assert_eq!(moments.turns(start + AFTER / 2), []);
        assert_eq!(moments.turns(start + AFTER), [Turn { pipeline: 1, stale: true }]);
        let moment = moments.advance().unwrap();
        assert_eq!((moment.epoch, moment.stale), (Epoch(5), vec!["other".to_owned()]));
        moments.marked("one", Epoch(9));
        assert_eq!(epoch(moments.advance()), Some(9));
        moments.marked("other", Epoch(8));
        assert_eq!(moments.turns(start + 2 * AFTER), []);
        moments.marked("other", Epoch(9));
        assert_eq!(moments.turns(start + 2 * AFTER), [Turn { pipeline: 1, stale: false }]);
        let again = Moment { epoch: Epoch(9), stale: Vec::new() };
        assert_eq!(moments.advance(), Some(again), "readers see now what it has caught up with");
        assert_eq!(moments.advance(), None);
    }

    #[test]
    fn one_that_is_slow_but_goes_on_is_not_stale() {
        let mut moments = two(4, 4, 4);
        let start = Instant::now();
        for step in 1..9u32 {
            moments.marked("one", Epoch(5 + u64::from(step)));
            assert_eq!(moments.turns(start + step * AFTER / 2), []);
            moments.marked("other", Epoch(4 + u64::from(step)));
        }
    }

    #[test]
    fn when_nobody_can_write_nobody_is_stale() {
        let mut moments = two(4, 4, 4);
        assert_eq!(moments.turns(Instant::now() + 100 * AFTER), []);
        assert_eq!(moments.advance(), None);
    }

    #[test]
    fn one_that_starts_behind_the_moment_does_not_take_it_back() {
        let mut moments = two(9, 2, 9);
        assert_eq!(moments.stale().collect::<Vec<_>>(), ["other"]);
        moments.marked("one", Epoch(10));
        assert_eq!(epoch(moments.advance()), Some(10));
    }
}
