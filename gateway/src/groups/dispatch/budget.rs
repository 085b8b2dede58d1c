//! Bytes of records that were read and not delivered yet: bounded over the process, in fair shares.
//!
//! Every tenant that holds or lacks bytes has the same share, and within a tenant every such group. Bytes are charged when they
//! have come, never while they are waited for: a broker that is silent holds nobody's share. Who finds none left is noted as
//! lacking; whoever holds more than its share is then asked to give back (what is cached can be read again), and whoever lacks is
//! told when there is room. While somebody lacks, nobody goes beyond its share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use sluice_types::TenantUid;

/// Bytes over all groups.
pub(super) const PROCESS_BYTES_MAX: usize = 64 << 20;
/// Bytes of one group.
pub(super) const GROUP_BYTES_MAX: usize = 4 << 20;
/// No share is less: a read must be worth its while. With more groups than have room for it, who used its bytes least lately
/// gives back.
pub(super) const SHARE_BYTES_MIN: usize = 64 << 10;

/// The bytes of the process.
pub(super) struct Budget(Arc<Mutex<Ledger>>);

/// One group's part of them. Clones are the same; what is charged stays charged until its [`Charge`] is dropped.
#[derive(Clone)]
pub(super) struct Account(Arc<Holder>);

struct Holder {
    id: u64,
    ledger: Arc<Mutex<Ledger>>,
    /// Whether it may be noted as lacking: mostly it is not, and need not ask.
    lacks: AtomicBool,
    told: Arc<Notify>,
}

/// Bytes that are held; they come back when it is dropped.
pub(super) struct Charge {
    account: Account,
    bytes: usize,
}

struct Ledger {
    bytes_max: usize,
    held: usize,
    /// Those that hold or lack something.
    active: HashMap<u64, Entry>,
    tenants: HashMap<TenantUid, Tenant>,
    /// Of every account, active or not.
    owners: HashMap<u64, TenantUid>,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    tenant: TenantUid,
    held: usize,
    /// Bytes it asked for and did not get, and when it did, by number.
    lacks: Option<(usize, u64)>,
    /// What it is asked to give back.
    owes: usize,
    /// When it was last used, by number.
    used: u64,
    told: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Tenant {
    held: usize,
    active: usize,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Mutex::new(Ledger {
            bytes_max: bytes,
            held: 0,
            active: HashMap::new(),
            tenants: HashMap::new(),
            owners: HashMap::new(),
            next: 0,
        })))
    }

    /// An account of a group of this tenant.
    pub(super) fn open(&self, tenant: TenantUid) -> Account {
        let mut ledger = self.0.lock();
        let id = ledger.number();
        ledger.owners.insert(id, tenant);
        drop(ledger);
        let ledger = Arc::clone(&self.0);
        Account(Arc::new(Holder { id, ledger, lacks: AtomicBool::new(false), told: Arc::default() }))
    }
}

impl Account {
    /// What the group may hold now, and what it holds.
    pub(super) fn share(&self) -> (usize, usize) {
        let ledger = self.0.ledger.lock();
        (ledger.share(self.0.id), ledger.held(self.0.id))
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.share().1
    }

    /// What it is asked to give back: more than its share, while others lack.
    pub(super) fn owes(&self) -> usize {
        self.0.ledger.lock().active.get(&self.0.id).map_or(0, |entry| entry.owes.min(entry.held))
    }

    /// Whether a charge of so many bytes would succeed now. If not, the account lacks them from now on; if so it lacks nothing
    /// while it reads, so that nobody waits for its broker.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let mut ledger = self.0.ledger.lock();
        let fits = ledger.fits(self.0.id, bytes);
        match fits {
            true => ledger.content(self.0.id),
            false => ledger.lack(&self.0, bytes),
        }
        fits
    }

    /// Charges the bytes. If there are none left, the account lacks them from now on.
    pub(super) fn try_charge(&self, bytes: usize) -> Option<Charge> {
        // Nothing always fits.
        if bytes > 0 {
            let mut ledger = self.0.ledger.lock();
            if !ledger.fits(self.0.id, bytes) {
                ledger.lack(&self.0, bytes);
                return None;
            }
            ledger.add(&self.0, bytes);
        }
        Some(Charge { account: self.clone(), bytes })
    }

    /// It lacks nothing any more.
    pub(super) fn content(&self) {
        if self.0.lacks.swap(false, Ordering::Relaxed) {
            self.0.ledger.lock().content(self.0.id);
        }
    }

    /// Its bytes were of use.
    pub(super) fn touch(&self) {
        let mut ledger = self.0.ledger.lock();
        let now = ledger.number();
        if let Some(entry) = ledger.active.get_mut(&self.0.id) {
            entry.used = now;
        }
    }

    /// Ends when it should give back, or when there is room for what it lacked.
    pub(super) async fn woken(&self) {
        self.0.told.notified().await;
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let mut ledger = self.ledger.lock();
        ledger.content(self.id);
        ledger.owners.remove(&self.id);
    }
}

impl Charge {
    /// Makes it what is really held, also beyond what is left: it is there.
    pub(super) fn set(&mut self, bytes: usize) {
        let mut ledger = self.account.0.ledger.lock();
        if bytes > self.bytes {
            ledger.add(&self.account.0, bytes - self.bytes);
        } else {
            ledger.release(self.account.0.id, self.bytes - bytes);
        }
        self.bytes = bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.0.ledger.lock().release(self.account.0.id, self.bytes);
    }
}

impl std::fmt::Debug for Charge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Charge({})", self.bytes)
    }
}

impl Ledger {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// What an account may hold: as if it were active.
    fn share(&self, id: u64) -> usize {
        let Some(tenant) = self.owners.get(&id) else { return SHARE_BYTES_MIN };
        let itself = usize::from(!self.active.contains_key(&id));
        let (others, groups) = match self.tenants.get(tenant) {
            Some(known) => (self.tenants.len(), known.active + itself),
            None => (self.tenants.len() + 1, 1),
        };
        let share = self.bytes_max / others.max(1) / groups.max(1);
        share.clamp(SHARE_BYTES_MIN.min(self.bytes_max), GROUP_BYTES_MAX)
    }

    fn held(&self, id: u64) -> usize {
        self.active.get(&id).map_or(0, |entry| entry.held)
    }

    fn fits(&self, id: u64, bytes: usize) -> bool {
        let held = self.held(id);
        let others_lack = || self.active.iter().any(|(of, entry)| *of != id && entry.lacks.is_some());
        // Who holds nothing may read whatever its share is, or it would never get on.
        let within_share = || held == 0 || held + bytes <= self.share(id);
        self.held + bytes <= self.bytes_max && (within_share() || !others_lack())
    }

    fn entry(&mut self, holder: &Holder) -> Option<&mut Entry> {
        let tenant = *self.owners.get(&holder.id)?;
        let used = self.number();
        let tenants = &mut self.tenants;
        Some(self.active.entry(holder.id).or_insert_with(|| {
            tenants.entry(tenant).or_default().active += 1;
            Entry { tenant, held: 0, lacks: None, owes: 0, used, told: Arc::clone(&holder.told) }
        }))
    }

    /// Takes out what neither holds nor lacks.
    fn rest(&mut self, id: u64) {
        let Some(entry) = self.active.get(&id).filter(|entry| entry.held == 0 && entry.lacks.is_none()) else { return };
        let tenant = entry.tenant;
        self.active.remove(&id);
        if let Some(of) = self.tenants.get_mut(&tenant) {
            of.active -= 1;
            if of.active == 0 {
                self.tenants.remove(&tenant);
            }
        }
    }

    fn add(&mut self, holder: &Holder, bytes: usize) {
        let Some(entry) = self.entry(holder) else { return };
        entry.held += bytes;
        entry.lacks = None;
        let tenant = entry.tenant;
        self.held += bytes;
        if let Some(of) = self.tenants.get_mut(&tenant) {
            of.held += bytes;
        }
        self.tell_next();
    }

    fn release(&mut self, id: u64, bytes: usize) {
        let Some(entry) = self.active.get_mut(&id) else { return };
        entry.held -= bytes;
        entry.owes = entry.owes.saturating_sub(bytes);
        let tenant = entry.tenant;
        self.held -= bytes;
        if let Some(of) = self.tenants.get_mut(&tenant) {
            of.held -= bytes;
        }
        self.rest(id);
        self.tell_next();
    }

    fn content(&mut self, id: u64) {
        let Some(entry) = self.active.get_mut(&id) else { return };
        if entry.lacks.take().is_some() {
            self.rest(id);
            if self.active.values().all(|entry| entry.lacks.is_none()) {
                self.active.values_mut().for_each(|entry| entry.owes = 0);
            }
            self.tell_next();
        }
    }

    fn lack(&mut self, holder: &Holder, bytes: usize) {
        let since = self.number();
        let Some(entry) = self.entry(holder) else { return };
        let since = entry.lacks.map_or(since, |(_, since)| since);
        entry.lacks = Some((bytes, since));
        holder.lacks.store(true, Ordering::Relaxed);
        self.reclaim(holder.id, bytes);
    }

    /// Asks for bytes back until there would be enough: what is beyond its holder's share, the most first; then, if the shares
    /// are as small as they get, what was used least lately.
    fn reclaim(&mut self, id: u64, bytes: usize) {
        let asked: usize = self.active.values().map(|entry| entry.owes.min(entry.held)).sum();
        let mut needed = (self.held + bytes).saturating_sub(self.bytes_max).saturating_sub(asked);
        if needed == 0 {
            return;
        }
        let mut over: Vec<(usize, u64)> = Vec::new();
        let mut all: Vec<(u64, u64)> = Vec::new();
        for (&of, entry) in self.active.iter().filter(|(of, entry)| **of != id && entry.held > entry.owes) {
            let beyond = entry.held.saturating_sub(self.share(of)).saturating_sub(entry.owes);
            if beyond > 0 {
                over.push((beyond, of));
            }
            all.push((entry.used, of));
        }
        over.sort_unstable_by(|a, b| b.cmp(a));
        all.sort_unstable();
        let least_used = all.into_iter().map(|(_, of)| (usize::MAX, of));
        for (most, of) in over.into_iter().chain(least_used) {
            if needed == 0 {
                break;
            }
            let Some(entry) = self.active.get_mut(&of) else { continue };
            let back = most.min(entry.held - entry.owes.min(entry.held)).min(needed);
            entry.owes += back;
            entry.told.notify_one();
            needed -= back;
        }
    }

    /// Tells one of those who lack that there is room for it: of the tenant that holds least, the group that holds least, then
    /// who has waited longest. When it has charged, or is content, the next one is told.
    fn tell_next(&mut self) {
        let free = self.bytes_max.saturating_sub(self.held);
        let lacking = self.active.values().filter(|entry| entry.lacks.is_some_and(|(bytes, _)| bytes <= free));
        let rank = |entry: &&Entry| {
            let of_tenant = self.tenants.get(&entry.tenant).map_or(0, |tenant| tenant.held);
            (of_tenant, entry.held, entry.lacks.map(|(_, since)| since))
        };
        if let Some(next) = lacking.min_by_key(rank) {
            next.told.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const MIB: usize = 1 << 20;

    fn is_told(account: &Account) -> bool {
        account.woken().now_or_never().is_some()
    }

    #[test]
    fn what_is_held_is_bounded_and_comes_back() {
        let budget = Budget::new(MIB);
        let (one, other) = (budget.open(TenantUid::random()), budget.open(TenantUid::random()));
        let first = one.try_charge(MIB).expect("free");
        assert!(other.try_charge(MIB / 2).is_none());
        assert!(!is_told(&other));
        drop(first);
        assert!(is_told(&other), "there is room for what it lacked");
        let mut charge = other.try_charge(MIB / 2).expect("free");
        charge.set(10);
        assert_eq!((other.held(), one.held()), (10, 0));
        drop(charge);
        assert_eq!(budget.0.lock().held, 0);
        assert!(budget.0.lock().active.is_empty() && budget.0.lock().tenants.is_empty());
    }

    #[test]
    fn who_holds_more_than_its_share_gives_back_to_who_lacks() {
        let budget = Budget::new(4 * MIB);
        let (greedy, small) = (TenantUid::random(), TenantUid::random());
        let groups: Vec<Account> = (0..4).map(|_| budget.open(greedy)).collect();
        let mut held: Vec<Charge> = groups.iter().map(|group| group.try_charge(MIB).expect("free")).collect();
        let late = budget.open(small);
        assert!(late.try_charge(MIB).is_none());
        assert_eq!(late.share().0, 2 * MIB, "half of all is its tenant's");
        let owed: usize = groups.iter().map(Account::owes).sum();
        assert_eq!(owed, MIB, "what was lacking, and no more");
        let told: Vec<bool> = groups.iter().map(is_told).collect();
        assert_eq!(told, groups.iter().map(|group| group.owes() > 0).collect::<Vec<_>>());
        assert!(groups[0].try_charge(1).is_none(), "nobody goes beyond its share while another lacks");
        for (group, charge) in groups.iter().zip(&mut held) {
            charge.set(MIB - group.owes());
        }
        assert!(is_told(&late) && late.try_charge(MIB).is_some());
    }

    #[test]
    fn a_group_that_asks_in_vain_is_heard_before_one_that_has_its_share() {
        let budget = Budget::new(MIB);
        let tenant = TenantUid::random();
        let (one, other) = (budget.open(tenant), budget.open(tenant));
        let first = one.try_charge(MIB).expect("all");
        assert!(other.try_charge(MIB / 2).is_none() && one.try_charge(1).is_none());
        assert_eq!(one.owes(), MIB / 2);
        drop(first);
        assert!(is_told(&other));
        one.content();
        let _mine = other.try_charge(MIB / 2).expect("its share");
        other.content();
        assert!(one.try_charge(MIB / 2).is_some());
    }

    #[test]
    fn with_more_groups_than_least_shares_the_least_used_gives_back() {
        let budget = Budget::new(4 * SHARE_BYTES_MIN);
        let tenant = TenantUid::random();
        let groups: Vec<Account> = (0..5).map(|_| budget.open(tenant)).collect();
        let _held: Vec<Charge> =
            groups[..4].iter().map(|group| group.try_charge(SHARE_BYTES_MIN).expect("free")).collect();
        groups[0].touch();
        assert!(groups[4].try_charge(SHARE_BYTES_MIN).is_none());
        assert_eq!(groups[1].owes(), SHARE_BYTES_MIN);
        assert!(!is_told(&groups[0]));
        groups[4].content();
        assert_eq!(groups[1].owes(), 0, "nobody lacks any more");
    }
}
