//! What goes wrong, and what people do.

use std::sync::Arc;

use tokio::sync::oneshot;

use sluice_proto::internal::control::v1::Life;
use sluice_proto::internal::control::v1::control_record::Resource;
use sluice_proto::stream::v1::ResetOffsetsRequest;
use sluice_proto::stream::v1::reset_offsets_request::To;

use crate::groups::dispatch::action::Event;
use crate::groups::dispatch::command::Command;
use crate::groups::dispatch::sim::clients::{Ask, Request};
use crate::groups::dispatch::sim::happening::Happening;
use crate::groups::dispatch::sim::kafka::Tp;
use crate::groups::dispatch::sim::world::World;

impl World {
    pub(super) fn fault(&mut self) {
        if self.is_calm {
            return;
        }
        let pause = self.chance.within(50..2_500);
        self.later(pause, Happening::Fault);
        let now = self.clock.now;
        let gateway = self.chance.below(self.gateways.len());
        let until = now + self.chance.within(100..8_000);
        match self.chance.below(32) {
            0..5 => self.move_owner(gateway),
            5..8 => self.kill(gateway, until),
            8..12 => self.gateways[gateway].freeze(now, until),
            12..15 => self.gateways[gateway].cut_until = until,
            15..17 => self.lossy = if self.lossy > 0 { 0 } else { self.chance.within(1..25) },
            17..19 => {
                if let Some(tp) = self.any_part()
                    && let Some(log) = self.kafka.logs.get_mut(&tp)
                {
                    log.away_until = until;
                }
            }
            19 => self.kafka.away_until = until,
            20..23 => self.trim(),
            23..25 => self.reset(),
            25 => self.grow(),
            26 | 30 | 31 => self.policy(),
            27 => self.cut(),
            28 => self.stop(gateway),
            29 if self.chance.percent(20) => self.delete(),
            _ => {}
        }
    }

    /// No more faults; those that are there pass by themselves.
    pub(super) fn calm(&mut self) {
        self.is_calm = true;
        self.lossy = 0;
        // What does not pass by itself: a gateway that has not heard.
        self.move_owner(self.owner);
    }

    pub(super) fn any_part(&mut self) -> Option<Tp> {
        let tps: Vec<Tp> = self.kafka.logs.keys().cloned().collect();
        (!tps.is_empty()).then(|| tps[self.chance.below(tps.len())].clone())
    }

    fn move_owner(&mut self, owner: usize) {
        self.owner = owner;
        for gateway in 0..self.gateways.len() {
            let after = self.chance.within(1..2_000);
            self.later(after, Happening::Owner { gateway, owner });
        }
    }

    fn kill(&mut self, gateway: usize, until: u64) {
        self.end_life(gateway);
        let it = &mut self.gateways[gateway];
        it.down_until = until;
        // Its next start knows of no stop.
        (it.frozen_until, it.awake_since) = (0, until);
    }

    /// The gateway is stopped in order, and is there again soon.
    fn stop(&mut self, gateway: usize) {
        let deadline = self.clock.at(self.chance.within(100..3_000));
        if let Some(life) = self.gateways[gateway].running.as_ref().map(|running| running.life)
            && self.clock.now >= self.gateways[gateway].frozen_until
        {
            self.step(gateway, life, Event::Stop(deadline));
        }
    }

    fn trim(&mut self) {
        let Some(tp) = self.any_part() else { return };
        let Some(log) = self.kafka.logs.get_mut(&tp) else { return };
        let start = self.chance.within(log.start as u64..log.end as u64 + 1) as i64;
        log.trim(start);
        let had_begun = self.kafka.committed.contains_key(&tp);
        self.truth.trimmed(&tp, start, had_begun);
    }

    fn cut(&mut self) {
        let Some(tp) = self.any_part() else { return };
        let Some(log) = self.kafka.logs.get_mut(&tp) else { return };
        let end = self.chance.within(log.start as u64..log.end as u64 + 1) as i64;
        log.cut(end);
        self.truth.cut(&tp, end);
        self.unpark(&tp);
    }

    fn publish(&mut self, resource: Resource) {
        let record = self.published.record(resource);
        for gateway in 0..self.gateways.len() {
            let after = self.chance.within(1..1_500);
            self.later(after, Happening::Published { gateway, record: Box::new(record.clone()) });
        }
    }

    fn grow(&mut self) {
        let at = self.chance.below(self.published.topics.len() - 1);
        let topic = &mut self.published.topics[at];
        if topic.partitions >= 5 || topic.life != i32::from(Life::Active) {
            return;
        }
        topic.partitions += 1;
        let (topic, uid) = (topic.clone(), topic.uid.parse().expect("a uid"));
        let name = Arc::clone(&self.names[&uid]);
        self.kafka.logs.insert((name, topic.partitions - 1), Default::default());
        self.kafka.rebalance();
        self.publish(Resource::Topic(topic));
    }

    fn policy(&mut self) {
        let group = &mut self.published.group;
        if group.max_attempts > 0 {
            group.max_attempts = self.chance.within(1..6) as i32;
        }
        group.ack_deadline_ms = self.chance.within(500..8_000) as i64;
        let group = group.clone();
        self.publish(Resource::Group(group));
    }

    /// One of two topics is deleted.
    fn delete(&mut self) {
        if self.published.topics.len() < 3 || self.published.topics[0].life != i32::from(Life::Active) {
            return;
        }
        self.published.topics[0].life = Life::Gone.into();
        let topic = self.published.topics[0].clone();
        let name = Arc::clone(&self.names[&topic.uid.parse().expect("a uid")]);
        self.kafka.logs.retain(|tp, _| tp.0 != name);
        self.kafka.committed.retain(|tp, _| tp.0 != name);
        self.kafka.rebalance();
        for partition in 0..topic.partitions {
            let tp = (Arc::clone(&name), partition);
            self.truth.deleted(&tp);
            self.unpark(&tp);
        }
        self.publish(Resource::Topic(topic));
    }

    fn reset(&mut self) {
        let Some(tp) = self.any_part() else { return };
        let Some(log) = self.kafka.logs.get(&tp) else { return };
        let to = self.chance.within(log.start as u64..log.end as u64 + 1) as i64;
        let gateway = (0..self.gateways.len()).find(|at| self.gateways[*at].running.is_some());
        let Some(gateway) = gateway else { return };
        let all = self.names.iter().find(|(_, name)| **name == tp.0).map(|(uid, _)| uid.to_string());
        let topic = self.published.topics.iter().find(|topic| Some(&topic.uid) == all.as_ref());
        let Some(topic) = topic.map(|topic| format!("namespaces/prod/topics/{}", topic.id)) else { return };
        let request = ResetOffsetsRequest {
            topic,
            partitions: vec![tp.1],
            to: Some(To::Offset(to)),
            force: true,
            ..Default::default()
        };
        let (reply, answer) = oneshot::channel();
        let deadline = self.clock.at(self.chance.within(500..6_000));
        let command = Command::Reset { request, deadline, reply };
        let ask = Some(Ask::Reset { tps: vec![tp], answer });
        self.request(Request { gateway, life: None, command, ask });
    }
}
