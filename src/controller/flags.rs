//! Flags: what operators cap. Lower takes effect before it is written, higher after.

use std::sync::Arc;

use crate::domain::{Event, Flag, Flags, Name, Record};

use super::{
    actor::Controller,
    handle::{Rejected, Step, Wish},
};

impl Controller {
    /// What setting a flag comes to: none when it is in force as it is.
    pub(super) fn set_flag(&self, flag: &Flag) -> Result<Option<Event>, Rejected> {
        let event = Event::Flagged(Box::new(flag.clone()));
        match self.flags.get(&flag.name) {
            Some(record) if record.event == event => Ok(None),
            None if Flags::LEN_MAX <= self.flags.len() => {
                let why = format!("there are {} flags already", Flags::LEN_MAX);
                Err(Rejected::Unavailable(why))
            }
            Some(_) | None => Ok(Some(event)),
        }
    }

    /// What clearing a flag comes to: none when there is none of that name.
    pub(super) fn clear_flag(&self, name: &Name) -> Option<Event> {
        self.flags.contains_key(name).then(|| Event::Unflagged(name.clone()))
    }

    /// Whether it changes flags, and nobody may see more after it.
    pub(super) fn lowers(&self, event: &Event) -> bool {
        let Some(name) = event.flag() else { return false };
        let before = self.flag_set();
        let after = if let Event::Flagged(flag) = event {
            before.with((**flag).clone())
        } else {
            before.without(name)
        };
        after.are_within(&before)
    }

    /// Takes note of a record about a flag; says whether it was one.
    pub(super) fn note_flag(&mut self, record: &Record) -> bool {
        let Some(name) = record.event.flag() else { return false };
        if matches!(record.event, Event::Flagged(_)) {
            self.flags.insert(name.clone(), Arc::new(record.clone()));
        } else {
            self.flags.remove(name);
        }
        self.flag_all();
        let now = self.clock.now();
        self.managed.values_mut().for_each(|it| it.weigh(now));
        true
    }

    /// Tells every rollout which flags it has to do with.
    pub(super) fn flag_all(&mut self) {
        let flags = self.flag_set();
        for (name, managed) in &mut self.managed {
            managed.flags = flags.of(name);
        }
    }

    pub(super) fn flag_set(&self) -> Flags {
        let flag = |record: &Arc<Record>| {
            if let Event::Flagged(flag) = &record.event { Some((**flag).clone()) } else { None }
        };
        let flags = self.flags.values().filter_map(flag);
        flags.fold(Flags::default(), |flags, it| flags.with(it))
    }
}

impl Step {
    /// Whether it is about what that record is about.
    pub(super) fn is_about(&self, record: &Record) -> bool {
        let flag = match &self.wish {
            Wish::SetFlag(flag) => Some(&flag.name),
            Wish::ClearFlag(name) => Some(name),
            Wish::Create(_) | Wish::Obey(_) | Wish::Renew | Wish::Delete | Wish::Lift => None,
        };
        self.name == record.rollout && flag == record.event.flag()
    }
}

#[cfg(test)]
#[path = "flags_tests.rs"]
mod tests;
