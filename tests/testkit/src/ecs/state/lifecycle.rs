//! The way of a task through its states.

use std::time::Duration;

use tokio::time::Instant;

use super::task::{Status, StopCode, Task, TaskId};
use super::{ControlError, State};
use crate::ecs::process::Order;

/// What the exit code of a container is that a signal ended: 128 and the signal's number.
const TERMINATED: i64 = 143;
const KILLED: i64 = 137;

impl State {
    /// When something comes due next, on the runtime's clock.
    pub(in crate::ecs) fn next_deadline(&self) -> Option<Instant> {
        self.next_due().map(|(at, _)| self.clock.runtime_moment(at))
    }

    fn next_due(&self) -> Option<(Instant, TaskId)> {
        let due = |task: &Task| task.due.into_iter().chain(task.kill_due).min();
        let next =
            self.tasks.values().filter_map(|task| Some((due(task)?, &task.id))).min_by_key(|(at, _)| *at)?;
        Some((next.0, next.1.clone()))
    }

    /// Does what is due by now, in the order in which it came due.
    pub(in crate::ecs) fn fire(&mut self) {
        let now = self.clock.now();
        while let Some((at, id)) = self.next_due().filter(|(at, _)| *at <= now) {
            self.advance_task(&id, at);
        }
        self.touch();
    }

    fn advance_task(&mut self, id: &str, at: Instant) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        if task.kill_due.is_some_and(|due| due <= at) {
            task.kill_due = None;
            self.signal(id, true, at);
            return;
        }
        task.due = None;
        match task.status {
            Status::Provisioning if task.awaits_instance => {
                let reason = format!("TaskFailedToStart: {}", self.missing_resource(id));
                self.fail_to_start(id, &reason, at);
            }
            Status::Provisioning => self.enter(id, Status::Pending, at),
            Status::Pending => match task.fails_to_start.clone() {
                Some(reason) => self.fail_to_start(id, &reason, at),
                None => self.enter(id, Status::Activating, at),
            },
            Status::Activating => self.enter(id, Status::Running, at),
            Status::Running => self.enter(id, Status::Deactivating, at),
            Status::Deactivating => self.enter(id, Status::Stopping, at),
            Status::Stopping => self.enter(id, Status::Deprovisioning, at),
            Status::Deprovisioning => self.enter(id, Status::Stopped, at),
            Status::Stopped => {
                self.tasks.remove(id);
            }
        }
    }

    /// Puts a task into a state and does what belongs to it.
    pub(in crate::ecs) fn enter(&mut self, id: &str, status: Status, at: Instant) {
        let (forget_after, stop_timeout) = (self.config.forget_after, self.config.stop_timeout);
        let delay = self.config.delays.of(status);
        let held = self.held.contains(&status);
        let provisioning_timeout = self.config.provisioning_timeout;
        let Some(task) = self.tasks.get_mut(id) else { return };
        task.status = status;
        task.version += 1;
        task.history.push(status);
        task.due = (!held).then(|| at + delay);
        match status {
            Status::Provisioning if task.awaits_instance => task.due = Some(at + provisioning_timeout),
            Status::Provisioning | Status::Deactivating => {}
            Status::Pending => task.times.created = Some(at),
            Status::Activating => {
                task.times.pulled = Some(at);
                self.start_containers(id);
            }
            Status::Running => {
                task.times.started = Some(at);
                task.due = None;
                self.heed_exits(id, at);
            }
            Status::Stopping => {
                if !task.all_ended() {
                    task.due = None;
                    let timeout = task.definition.stop_timeout().unwrap_or(stop_timeout);
                    task.kill_due.get_or_insert(at + timeout);
                    self.signal(id, false, at);
                }
            }
            Status::Deprovisioning => {
                task.kill_due = None;
                task.times.execution_stopped.get_or_insert(at);
            }
            Status::Stopped => {
                task.times.stopped = Some(at);
                task.kill_due = None;
                task.due = Some(at + forget_after);
                self.place_waiting(at);
            }
        }
    }

    /// Starts the containers. The one with a JIT configuration, or else the first essential one, runs the program.
    fn start_containers(&mut self, id: &str) {
        let program = self.config.runner.is_some();
        let Some(task) = self.tasks.get_mut(id) else { return };
        let jit = |c: &&mut super::Container| c.environment.contains_key(super::JIT_VARIABLE);
        let mut chosen = task.containers.iter_mut().find(jit).map(|c| c.name.clone());
        if chosen.is_none() {
            chosen = task.containers.iter().find(|c| c.essential).map(|c| c.name.clone());
        }
        for container in &mut task.containers {
            container.started = true;
            if program && chosen.as_ref() == Some(&container.name) {
                container.has_process = true;
                let environment = container.environment.clone();
                self.orders.send(Order::Start {
                    task: id.to_owned(),
                    container: container.name.clone(),
                    environment,
                });
            }
        }
    }

    /// Sends TERM, or KILL, to the containers. One without a process ends at once.
    pub(in crate::ecs) fn signal(&mut self, id: &str, kill: bool, at: Instant) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let mut ended = Vec::new();
        for container in task.containers.iter().filter(|c| c.is_up()) {
            if container.has_process {
                self.orders.send(Order::Signal { task: id.to_owned(), kill });
            } else {
                ended.push(container.name.clone());
            }
        }
        let code = if kill { KILLED } else { TERMINATED };
        for name in ended {
            self.container_ended(id, &name, Some(code), at);
        }
    }

    /// Notes a container's end, and what follows from it.
    pub(in crate::ecs) fn container_ended(&mut self, id: &str, name: &str, code: Option<i64>, at: Instant) {
        let stopping = self.config.delays.stopping;
        let held = self.held.contains(&Status::Stopping);
        let Some(task) = self.tasks.get_mut(id) else { return };
        let Some(container) = task.containers.iter_mut().find(|c| c.name == name && c.is_up()) else {
            return;
        };
        container.ended = true;
        container.exit_code = code;
        task.version += 1;
        if task.all_ended() {
            task.kill_due = None;
            task.times.execution_stopped.get_or_insert(at);
            match task.status {
                Status::Stopping => task.due = (!held).then(|| at + stopping),
                Status::Running if task.stop_wanted => task.due = Some(at),
                _ => {}
            }
        }
        self.heed_exits(id, at);
        self.touch();
    }

    /// Stops a RUNNING task whose essential container has ended.
    fn heed_exits(&mut self, id: &str, at: Instant) {
        let Some(task) = self.tasks.get(id) else { return };
        let over = task.containers.iter().any(|c| c.essential && c.ended);
        if over && task.status == Status::Running && !task.stop_wanted {
            let reason = "Essential container in task exited";
            self.begin_stop(id, Some(StopCode::EssentialContainerExited), reason, at);
        }
    }

    /// Sets the desired status to STOPPED and sends the task on its way there.
    pub(in crate::ecs) fn begin_stop(&mut self, id: &str, code: Option<StopCode>, reason: &str, at: Instant) {
        let Some(next) = self.want_stop(id, code, reason, at) else { return };
        self.enter(id, next, at);
        self.touch();
    }

    /// Notes why and since when a task stops; gives the state that comes next, unless the task stops already.
    fn want_stop(&mut self, id: &str, code: Option<StopCode>, reason: &str, at: Instant) -> Option<Status> {
        let task = self.tasks.get_mut(id).filter(|task| !task.stop_wanted)?;
        task.stop_wanted = true;
        task.stop_code = code;
        task.stopped_reason = Some(reason.to_owned());
        task.times.stopping = Some(at);
        task.awaits_instance = false;
        task.version += 1;
        Some(match task.status {
            Status::Provisioning | Status::Pending => Status::Deprovisioning,
            _ => Status::Deactivating,
        })
    }

    /// Ends a task that never ran. One without an instance shows no containers.
    fn fail_to_start(&mut self, id: &str, reason: &str, at: Instant) {
        if let Some(task) = self.tasks.get_mut(id) {
            if task.awaits_instance {
                task.containers.clear();
            }
            for container in &mut task.containers {
                container.reason = Some(reason.to_owned());
            }
        }
        self.begin_stop(id, Some(StopCode::TaskFailedToStart), reason, at);
    }
}

/// What a test makes happen to a task.
impl State {
    fn control_task(&self, task: &str) -> Result<TaskId, ControlError> {
        let id = task.rsplit('/').next().unwrap_or(task);
        self.tasks
            .get(id)
            .map(|task| task.id.clone())
            .ok_or_else(|| ControlError::NoSuchTask(task.to_owned()))
    }

    /// Ends every essential container of a task with this exit code.
    pub(in crate::ecs) fn exit_task(&mut self, task: &str, code: i64) -> Result<(), ControlError> {
        let id = self.control_task(task)?;
        let up = |task: &Task| {
            task.containers.iter().filter(|c| c.essential && c.is_up()).map(|c| c.name.clone()).collect()
        };
        let names: Vec<String> = self.tasks.get(&id).map(up).unwrap_or_default();
        if names.is_empty() {
            return Err(ControlError::WrongState(format!("{id} has no container that is up")));
        }
        let at = self.clock.now();
        for name in names {
            self.container_ended(&id, &name, Some(code), at);
        }
        Ok(())
    }

    /// Takes a Spot task's capacity back: TERM at once; the task stays RUNNING until its containers end or the notice is over.
    pub(in crate::ecs) fn interrupt_spot(&mut self, task: &str) -> Result<(), ControlError> {
        let id = self.control_task(task)?;
        let at = self.clock.now();
        let (notice, stop_timeout) = (self.config.spot_notice, self.config.stop_timeout);
        let is_spot = self.tasks.get(&id).is_some_and(Task::is_spot);
        if !is_spot {
            return Err(ControlError::WrongState(format!("{id} does not run on Spot")));
        }
        let Some(next) =
            self.want_stop(&id, Some(StopCode::SpotInterruption), "Your Spot Task was interrupted.", at)
        else {
            return Err(ControlError::WrongState(format!("{id} stops already")));
        };
        match self.tasks.get_mut(&id) {
            Some(task) if task.status == Status::Running => {
                task.due = Some(at + notice);
                task.kill_due = Some(at + task.definition.stop_timeout().unwrap_or(stop_timeout));
                self.signal(&id, false, at);
            }
            _ => self.enter(&id, next, at),
        }
        self.touch();
        Ok(())
    }

    /// Stops a task as AWS itself does, with any code and reason.
    pub(in crate::ecs) fn stop_task_as(
        &mut self,
        task: &str,
        code: Option<StopCode>,
        reason: &str,
    ) -> Result<(), ControlError> {
        let id = self.control_task(task)?;
        let at = self.clock.now();
        self.begin_stop(&id, code, reason, at);
        Ok(())
    }

    /// Loses a container instance with its tasks: their containers leave no exit code.
    pub(in crate::ecs) fn lose_instance(&mut self, cluster: &str, arn: &str) -> Result<(), ControlError> {
        let found =
            self.clusters.get_mut(cluster).ok_or_else(|| ControlError::NoSuchCluster(cluster.to_owned()))?;
        let index = found.instances.iter().position(|instance| instance.arn == arn);
        let index = index.ok_or_else(|| ControlError::NoSuchInstance(arn.to_owned()))?;
        let machine = found.instances.remove(index).machine;
        let at = self.clock.now();
        let lost: Vec<TaskId> = self
            .tasks
            .values()
            .filter(|task| task.instance.as_deref() == Some(arn))
            .map(|t| t.id.clone())
            .collect();
        for id in lost {
            self.begin_stop(&id, None, &format!("Host EC2 (instance {machine}) terminated."), at);
            let names: Vec<String> = self.tasks.get(&id).map_or_else(Vec::new, |task| {
                task.containers.iter().filter(|c| c.is_up()).map(|c| c.name.clone()).collect()
            });
            self.orders.send(Order::Signal { task: id.clone(), kill: true });
            for name in names {
                self.container_ended(&id, &name, None, at);
            }
        }
        Ok(())
    }

    /// Forgets a task at once, as if its hour were over; its process is killed.
    pub(in crate::ecs) fn forget_task(&mut self, task: &str) -> Result<(), ControlError> {
        let id = self.control_task(task)?;
        self.orders.send(Order::Signal { task: id.clone(), kill: true });
        self.tasks.remove(&id);
        self.touch();
        Ok(())
    }

    /// Keeps tasks that enter a state in it.
    pub(in crate::ecs) fn hold(&mut self, status: Status) {
        self.held.insert(status);
        for task in
            self.tasks.values_mut().filter(|task| task.status == status && task.status != Status::Stopped)
        {
            task.due = None;
        }
    }

    /// Lets the tasks that are kept in a state go on.
    pub(in crate::ecs) fn release(&mut self, status: Status) {
        self.held.remove(&status);
        let now = self.clock.now();
        let kept = |task: &&mut Task| {
            let by_itself = !matches!(status, Status::Running | Status::Stopped);
            let ready = status != Status::Stopping || task.all_ended();
            task.status == status && by_itself && ready && task.due.is_none()
        };
        for task in self.tasks.values_mut().filter(kept) {
            task.due = Some(now);
        }
        self.touch();
    }

    /// Sets the clock forward and does what comes due by then.
    pub(in crate::ecs) fn advance(&mut self, time: Duration) {
        self.clock.advance(time);
        self.fire();
    }
}
