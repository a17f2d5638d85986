//! The runners' tasks of one ECS cluster, as calls told of them. ECS is eventually consistent: what was made a moment ago may not
//! be shown yet, and what was shown may be missing for a while. No IO, no clock.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;

use super::task::{Stage, Task};
use crate::runner::Exit;
use crate::time::Plus;

/// A container is killed two minutes after it was told to stop, at the latest. One that is said to stop for so long has ended,
/// and ECS has not noticed.
const STOPPED_WITHIN: Duration = Duration::from_secs(600);
/// What was cleared away is remembered for longer than ECS shows it.
const CLEARED_FOR: Duration = Duration::from_secs(2 * 3600);

/// A task, and since when ECS does not show it.
#[derive(Debug)]
struct Known {
    task: Task,
    missing_since: Option<Timestamp>,
    stop_asked: bool,
}

/// All runners' tasks of this Kubernetes cluster in one ECS cluster, by id.
#[derive(Debug)]
pub(super) struct Index {
    /// A task that is not shown for so long is none.
    settles: Duration,
    tasks: HashMap<String, Known>,
    by_set: HashMap<String, BTreeSet<String>>,
    /// Those that ended and are cleared away, and when: ECS goes on showing them for an hour.
    cleared: HashMap<String, Timestamp>,
}

impl Index {
    /// Knows no task yet. One that is not shown for `settles` is none.
    pub(super) fn new(settles: Duration) -> Index {
        Index { settles, tasks: HashMap::new(), by_set: HashMap::new(), cleared: HashMap::new() }
    }

    /// The tasks.
    pub(super) fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.tasks.values().map(|known| &known.task)
    }

    /// The tasks of one scale set, by its UID. Costs what the set has, not what the cluster has.
    pub(super) fn of_set(&self, uid: &str) -> impl Iterator<Item = &Task> {
        self.by_set.get(uid).into_iter().flatten().filter_map(|id| self.get(id))
    }

    /// One task.
    pub(super) fn get(&self, id: &str) -> Option<&Task> {
        self.tasks.get(id).map(|known| &known.task)
    }

    /// How many have not ended.
    pub(super) fn live(&self) -> usize {
        self.tasks().filter(|task| !task.stage.has_ended()).count()
    }

    /// Whether one is on its way up or down: it will be something else soon.
    pub(super) fn is_moving(&self) -> bool {
        let moves = |known: &Known| {
            matches!(known.task.stage, Stage::Launching(_) | Stage::Stopping(_)) || known.stop_asked
        };
        self.tasks.values().any(moves)
    }

    /// A task that RunTask answered with. What a listing has told of it since stays.
    pub(super) fn started(&mut self, task: Task) {
        if !self.tasks.contains_key(&task.id) && !self.is_cleared(&task.id) {
            self.put(Known { task, missing_since: None, stop_asked: false });
        }
    }

    /// It was told to stop.
    pub(super) fn stop_asked(&mut self, id: &str) {
        if let Some(known) = self.tasks.get_mut(id) {
            known.stop_asked = true;
        }
    }

    /// Whether it was told to stop.
    pub(super) fn is_stop_asked(&self, id: &str) -> bool {
        self.tasks.get(id).is_some_and(|known| known.stop_asked)
    }

    /// Takes a task that ended for cleared away.
    pub(super) fn clear(&mut self, id: &str, now: Timestamp) {
        self.cleared.insert(id.to_owned(), now);
        self.take(id);
    }

    /// Whether a task was cleared away.
    pub(super) fn is_cleared(&self, id: &str) -> bool {
        self.cleared.contains_key(id)
    }

    /// Whether a task that ECS shows among the stopped ones tells nothing new.
    pub(super) fn is_settled(&self, id: &str) -> bool {
        self.is_cleared(id) || self.get(id).is_some_and(|task| task.stage.has_ended())
    }

    /// The tasks that have not ended, by id.
    pub(super) fn live_ids(&self) -> impl Iterator<Item = &str> {
        self.tasks.values().filter(|known| !known.task.stage.has_ended()).map(|known| known.task.id.as_str())
    }

    /// Takes over what a sweep showed: the descriptions, and the ids of all that were listed or described. Answers the UIDs of
    /// the scale sets for which anything changed.
    pub(super) fn swept(
        &mut self,
        described: Vec<Task>,
        shown: &HashSet<String>,
        now: Timestamp,
    ) -> BTreeSet<String> {
        let mut affected = BTreeSet::new();
        for task in described {
            affected.extend(self.see(task));
        }
        let mut gone = Vec::new();
        for known in self.tasks.values_mut() {
            if let Stage::Stopping(since) = known.task.stage
                && since.plus(STOPPED_WITHIN) <= now
            {
                let exit = Exit { at: now, leaves_nothing: true, ..Exit::default() };
                known.task.stage = Stage::Ended(exit);
                affected.insert(known.task.scale_set_uid.clone());
            }
            if shown.contains(&known.task.id) {
                known.missing_since = None;
                continue;
            }
            // One that ended and that nobody cleared away goes when ECS has forgotten it.
            let since = *known.missing_since.get_or_insert(now);
            if since.plus(self.settles) <= now {
                gone.push(known.task.id.clone());
            }
        }
        for id in gone {
            affected.extend(self.take(&id).map(|known| known.task.scale_set_uid));
        }
        self.cleared.retain(|_, at| at.plus(CLEARED_FOR) > now);
        affected
    }

    fn see(&mut self, mut task: Task) -> Option<String> {
        if self.is_cleared(&task.id) {
            return None;
        }
        let before = self.take(&task.id);
        let (mut stop_asked, mut changed) = (false, true);
        if let Some(before) = before {
            // StopTask deletes tags, and a replica that is behind shows what was.
            task.tags = task.tags.or(before.task.tags.clone());
            task.created_at = task.created_at.min(before.task.created_at);
            if task.stage.rank() < before.task.stage.rank() || before.task.stage.has_ended() {
                task.stage = before.task.stage.clone();
            }
            if let (Stage::Stopping(since), Stage::Stopping(at)) = (&before.task.stage, &mut task.stage) {
                *at = *since;
            }
            stop_asked = before.stop_asked;
            changed = before.task != task;
        }
        let uid = task.scale_set_uid.clone();
        self.put(Known { task, missing_since: None, stop_asked });
        changed.then_some(uid)
    }

    fn put(&mut self, known: Known) {
        let Task { id, scale_set_uid, .. } = &known.task;
        self.by_set.entry(scale_set_uid.clone()).or_default().insert(id.clone());
        self.tasks.insert(id.clone(), known);
    }

    fn take(&mut self, id: &str) -> Option<Known> {
        let known = self.tasks.remove(id)?;
        let uid = &known.task.scale_set_uid;
        if let Some(ids) = self.by_set.get_mut(uid) {
            ids.remove(id);
            if ids.is_empty() {
                self.by_set.remove(uid);
            }
        }
        Some(known)
    }
}

#[cfg(test)]
mod tests {
    use super::super::task::Marks;
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn task(id: &str, stage: Stage) -> Task {
        let marks = |word: &str| word.to_owned();
        Task {
            id: id.to_owned(),
            runner: format!("linux-{id}"),
            scale_set_uid: "uid".to_owned(),
            tags: Some(Marks {
                scale_set: marks("ci/linux"),
                backend: marks("aws"),
                template_hash: marks("hash"),
            }),
            definition: "runner:1".to_owned(),
            container: "runner".to_owned(),
            provider: None,
            created_at: at(0),
            stage,
        }
    }

    fn shown(ids: &[&str]) -> HashSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    fn ended() -> Stage {
        Stage::Ended(Exit { code: Some(0), leaves_nothing: true, ..Exit::default() })
    }

    const PROVISIONING: Stage = Stage::Launching("PROVISIONING");

    #[test]
    fn a_task_that_is_not_shown_yet_is_not_gone_for_five_minutes() {
        let mut index = Index::new(Duration::from_secs(300));
        index.started(task("a", PROVISIONING));
        for second in [10, 100, 309] {
            assert!(index.swept(Vec::new(), &shown(&[]), at(second)).is_empty());
            assert_eq!(index.of_set("uid").count(), 1, "second {second}");
        }
        index.swept(vec![task("a", Stage::Running)], &shown(&["a"]), at(320));
        index.swept(Vec::new(), &shown(&[]), at(330));
        assert_eq!(index.live(), 1, "the five minutes begin anew");
        assert_eq!(index.swept(Vec::new(), &shown(&[]), at(630)).len(), 1);
        assert_eq!((index.live(), index.of_set("uid").count()), (0, 0));
    }

    #[test]
    fn a_replica_that_is_behind_takes_nothing_back() {
        let mut index = Index::new(Duration::from_secs(300));
        index.swept(vec![task("a", Stage::Running)], &shown(&["a"]), at(0));
        let stale = Task { tags: None, ..task("a", PROVISIONING) };
        assert!(index.swept(vec![stale], &shown(&["a"]), at(1)).is_empty());
        let known = index.get("a").unwrap();
        assert_eq!((&known.stage, known.tags.is_some()), (&Stage::Running, true));
        index.swept(vec![task("a", ended())], &shown(&["a"]), at(2));
        assert!(index.swept(vec![task("a", Stage::Running)], &shown(&["a"]), at(3)).is_empty());
        assert!(index.is_settled("a"));
    }

    #[test]
    fn what_is_cleared_away_does_not_come_back_while_ecs_shows_it() {
        let mut index = Index::new(Duration::from_secs(300));
        index.swept(vec![task("a", ended())], &shown(&["a"]), at(0));
        assert_eq!((index.of_set("uid").count(), index.live()), (1, 0));
        index.clear("a", at(1));
        assert!(index.swept(vec![task("a", ended())], &shown(&["a"]), at(1)).is_empty());
        assert!(index.of_set("uid").next().is_none() && index.is_settled("a"));
        index.swept(Vec::new(), &shown(&[]), at(7201));
        assert!(!index.is_settled("a"), "nothing is kept of what ECS has forgotten");
    }

    #[test]
    fn what_ended_and_nobody_asks_for_goes_when_ecs_has_forgotten_it() {
        let mut index = Index::new(Duration::from_secs(300));
        index.swept(vec![task("a", ended())], &shown(&["a"]), at(0));
        index.swept(Vec::new(), &shown(&["a"]), at(3000));
        index.swept(Vec::new(), &shown(&[]), at(3600));
        assert_eq!(index.of_set("uid").count(), 1);
        index.swept(Vec::new(), &shown(&[]), at(3900));
        assert_eq!(index.of_set("uid").count(), 0);
    }

    #[test]
    fn what_stops_for_ten_minutes_has_ended_nobody_knows_how() {
        let mut index = Index::new(Duration::from_secs(300));
        let stopping = |second| task("a", Stage::Stopping(at(second)));
        index.swept(vec![stopping(0)], &shown(&["a"]), at(0));
        index.swept(vec![stopping(300)], &shown(&["a"]), at(599));
        assert!(index.is_moving());
        assert_eq!(index.swept(vec![stopping(300)], &shown(&["a"]), at(600)).len(), 1);
        assert!(matches!(&index.get("a").unwrap().stage, Stage::Ended(exit) if exit.code.is_none()));
    }
}
