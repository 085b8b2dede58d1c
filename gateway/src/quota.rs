//! Limits of one tenant at this gateway: requests, calls to the other services, bytes in, bytes out, bytes in flight.
//!
//! Rates are GCRA, one atomic word each, so a check costs nanoseconds and takes no lock. Bytes are logical record bytes; they
//! are taken by whoever knows them (the produce handler before it sends, the fetch handler after it read). A refusal names
//! the limit and the exact time after which the same request passes if nobody else comes first.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use sluice_edge::call::RateState;
use sluice_types::error::Error;
use sluice_types::gcra::{Decision, Gcra, Rate};
use sluice_types::limits::{ADMIN_BYTES_IN_FLIGHT, TenantLimits};
use sluice_types::{ErrorKind, Reason};

/// What a limit grants at once, in milliseconds of its rate. Short, so that a second's bytes stay near the rate.
const BURST_MS: u64 = 250;
/// Calls to the control plane and to billing a second, and at once: of their own, so that a busy data plane does not lock a tenant
/// out of its administration, nor a script that administrates stop its data.
const FORWARDED: Rate = Rate { units_per_second: 200, burst_units: 400 };
/// When to come back when too much is in flight: nobody knows when that ends.
const IN_FLIGHT_RETRY: Duration = Duration::from_millis(100);

/// The limits of one tenant. Limits change at once; what is owed stays.
#[derive(Debug)]
pub struct TenantLimiter {
    epoch: Instant,
    limits: ArcSwap<TenantLimits>,
    requests: Gcra,
    forwarded: Gcra,
    ingress: Gcra,
    egress: Gcra,
    in_flight: Arc<AtomicU64>,
    admin_in_flight: Arc<AtomicU64>,
}

impl TenantLimiter {
    /// A tenant that owes nothing.
    pub fn new(limits: TenantLimits) -> Self {
        Self {
            epoch: Instant::now(),
            limits: ArcSwap::from_pointee(limits),
            requests: Gcra::new(),
            forwarded: Gcra::new(),
            ingress: Gcra::new(),
            egress: Gcra::new(),
            in_flight: Arc::new(AtomicU64::new(0)),
            admin_in_flight: Arc::new(AtomicU64::new(0)),
        }
    }

    /// Replaces the limits.
    pub fn set_limits(&self, limits: TenantLimits) {
        self.limits.store(Arc::new(limits));
    }

    /// The limits in force.
    pub fn limits(&self) -> TenantLimits {
        **self.limits.load()
    }

    /// Takes one request; gives where the tenant stands now.
    pub fn take_request(&self) -> (RateState, Result<(), Error>) {
        take_one(&self.requests, "requests_per_second", rate_of(self.limits().requests_per_second), self.now())
    }

    /// Takes one call to another service.
    pub fn take_forwarded(&self) -> (RateState, Result<(), Error>) {
        take_one(&self.forwarded, "admin_calls_per_second", FORWARDED, self.now())
    }

    /// Takes the logical bytes of a produce call; nothing may be sent before it is `Ok`.
    pub fn take_ingress(&self, bytes: u64) -> Result<(), Error> {
        let rate = rate_of(self.limits().ingress_bytes_per_second);
        match self.ingress.request(rate, bytes, self.now()) {
            Decision::Accepted { .. } => Ok(()),
            Decision::Refused { retry_after } => Err(refused("ingress_bytes_per_second", rate, retry_after)),
        }
    }

    /// Gives back bytes taken for records that were certainly not sent.
    pub fn refund_ingress(&self, bytes: u64) {
        self.ingress.refund(rate_of(self.limits().ingress_bytes_per_second), bytes);
    }

    /// Whether a produce call would be refused now however few bytes it has; takes nothing. For refusing before a body of
    /// `length` is read. A body tells nothing of the logical bytes in it but that they are hardly more (JSON and base64 are
    /// longer), so it decides only when to come back.
    pub fn check_ingress(&self, length: u64) -> Result<(), Error> {
        let rate = rate_of(self.limits().ingress_bytes_per_second);
        match self.ingress.request(rate, 0, self.now()) {
            Decision::Accepted { .. } => Ok(()),
            Decision::Refused { retry_after } => {
                let room = duration_for(length.min(rate.burst_units), rate);
                Err(refused("ingress_bytes_per_second", rate, retry_after.saturating_add(room)))
            }
        }
    }

    /// Whether the tenant may read more now.
    pub fn check_egress(&self) -> Result<(), Error> {
        let rate = rate_of(self.limits().egress_bytes_per_second);
        let byte = duration_for(1, rate);
        // A request of nothing takes nothing and tells what is left.
        match self.egress.request(rate, 0, self.now()) {
            Decision::Accepted { remaining } if remaining > 0 => Ok(()),
            Decision::Accepted { .. } => Err(refused("egress_bytes_per_second", rate, byte)),
            Decision::Refused { retry_after } => {
                Err(refused("egress_bytes_per_second", rate, retry_after.saturating_add(byte)))
            }
        }
    }

    /// Books logical bytes that were handed out; later calls pay for them.
    pub fn charge_egress(&self, bytes: u64) {
        self.egress.charge(rate_of(self.limits().egress_bytes_per_second), bytes, self.now());
    }

    /// Takes back bytes that were booked and not taken by the client.
    pub fn refund_egress(&self, bytes: u64) {
        self.egress.refund(rate_of(self.limits().egress_bytes_per_second), bytes);
    }

    /// Holds bytes of a request or an answer until the guard is dropped. A request larger than the whole limit is let in
    /// when nothing else is, so that a small limit makes calls slow, not impossible.
    pub fn in_flight(&self, bytes: u64) -> Result<InFlightGuard, Error> {
        let mut guard = InFlightGuard::new(Whose::Tenant, self.limits().bytes_in_flight, &self.in_flight);
        guard.grow(bytes)?;
        Ok(guard)
    }

    /// The same for an admin or usage call.
    pub fn admin_in_flight(&self, bytes: u64) -> Result<InFlightGuard, Error> {
        let mut guard = InFlightGuard::new(Whose::Tenant, ADMIN_BYTES_IN_FLIGHT, &self.admin_in_flight);
        guard.grow(bytes)?;
        Ok(guard)
    }

    /// Bytes held now.
    pub fn bytes_in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether more than half of the bytes that may be in flight are.
    pub fn is_half_held(&self) -> bool {
        self.bytes_in_flight() > self.limits().bytes_in_flight / 2
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Bytes that all calls of the process may hold together; what bounds its memory under overload.
#[derive(Debug)]
pub struct ProcessBytes {
    limit: u64,
    in_flight: Arc<AtomicU64>,
}

impl ProcessBytes {
    /// At most `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self { limit, in_flight: Arc::default() }
    }

    /// Holds bytes until the guard is dropped; UNAVAILABLE when all are held.
    pub fn hold(&self, bytes: u64) -> Result<InFlightGuard, Error> {
        let mut guard = InFlightGuard::new(Whose::Process, self.limit, &self.in_flight);
        guard.grow(bytes)?;
        Ok(guard)
    }
}

/// Who has a limit of bytes in flight.
#[derive(Debug, Clone, Copy)]
enum Whose {
    Tenant,
    Process,
}

/// Bytes held for one call.
#[derive(Debug)]
pub struct InFlightGuard {
    whose: Whose,
    held: u64,
    limit: u64,
    total: Arc<AtomicU64>,
}

impl InFlightGuard {
    fn new(whose: Whose, limit: u64, total: &Arc<AtomicU64>) -> Self {
        Self { whose, held: 0, limit, total: Arc::clone(total) }
    }

    /// Holds more.
    pub fn grow(&mut self, bytes: u64) -> Result<(), Error> {
        let held = self.held;
        let limit = self.limit;
        let fits = |total: u64| {
            let next = total.saturating_add(bytes);
            // `total == held`: nobody but this call holds anything.
            (next <= limit || total == held).then_some(next)
        };
        match self.total.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => {
                self.held = self.held.saturating_add(bytes);
                Ok(())
            }
            Err(_) => Err(self.refusal()),
        }
    }

    /// Holds more, whatever the limit: for what is there already, and turned out larger than it was taken for. Until it is
    /// given back, others are refused.
    pub fn add(&mut self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
        self.held = self.held.saturating_add(bytes);
    }

    fn refusal(&self) -> Error {
        let error = match self.whose {
            Whose::Tenant => Error::new(
                ErrorKind::ResourceExhausted,
                Reason::InFlightLimited,
                format!(
                    "the tenant has {} bytes of requests in flight, its limit (bytes_in_flight); try again when some are answered",
                    self.limit
                ),
            )
            .with_metadata("limit", "bytes_in_flight"),
            Whose::Process => {
                Error::unavailable(Reason::Overloaded, "this gateway holds as many bytes as it can; try again")
            }
        };
        error.with_retry_after(IN_FLIGHT_RETRY)
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.total.fetch_sub(self.held, Ordering::Relaxed);
    }
}

fn rate_of(units_per_second: u64) -> Rate {
    Rate { units_per_second: units_per_second.max(1), burst_units: (units_per_second * BURST_MS / 1000).max(1) }
}

fn take_one(gcra: &Gcra, name: &'static str, rate: Rate, now: u64) -> (RateState, Result<(), Error>) {
    let state =
        |remaining, reset| RateState { per_second: rate.units_per_second, limit: rate.burst_units, remaining, reset };
    match gcra.request(rate, 1, now) {
        Decision::Accepted { remaining } => {
            let used = rate.burst_units.saturating_sub(remaining);
            (state(remaining, duration_for(used, rate)), Ok(()))
        }
        Decision::Refused { retry_after } => (state(0, retry_after), Err(refused(name, rate, retry_after))),
    }
}

fn duration_for(units: u64, rate: Rate) -> Duration {
    let nanos = (u128::from(units) * 1_000_000_000).div_ceil(u128::from(rate.units_per_second));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

fn refused(name: &'static str, rate: Rate, retry_after: Duration) -> Error {
    Error::new(
        ErrorKind::ResourceExhausted,
        Reason::RateLimited,
        format!(
            "the tenant is over its limit of {} {}; try again in {} ms",
            rate.units_per_second,
            name.replace('_', " ").replace(" per second", " a second"),
            retry_after.as_micros().div_ceil(1000)
        ),
    )
    .with_metadata("limit", name)
    .with_retry_after(retry_after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(ingress: u64, in_flight: u64) -> TenantLimiter {
        TenantLimiter::new(TenantLimits {
            ingress_bytes_per_second: ingress,
            bytes_in_flight: in_flight,
            ..TenantLimits::default()
        })
    }

    #[test]
    fn a_refusal_names_the_limit_and_when_to_come_back() {
        let limiter = limiter(1000, 1000);
        limiter.take_ingress(250).expect("the burst");
        let error = limiter.take_ingress(100).expect_err("nothing is left");
        assert_eq!((error.kind, error.reason), (ErrorKind::ResourceExhausted, Reason::RateLimited));
        let wait = error.retry_after.expect("a time");
        assert!(wait > Duration::from_millis(90) && wait <= Duration::from_millis(100), "{wait:?}");
        assert!(error.message.contains("1000 ingress bytes a second"), "{}", error.message);
    }

    #[test]
    fn an_early_check_refuses_only_what_debt_refuses() {
        let limiter = limiter(1000, 1000);
        limiter.take_ingress(200).expect("most of the burst");
        for _ in 0..10 {
            limiter.check_ingress(100_000).expect("what is left may do for a long body with little in it");
        }
        limiter.take_ingress(50).expect("the early checks took nothing");
        limiter.refund_ingress(250);
        limiter.take_ingress(1000).expect("larger than the burst: into debt");
        let error = limiter.check_ingress(100).expect_err("in debt");
        let wait = error.retry_after.expect("a time");
        // Until the debt is within the burst, and as long again as the body may need.
        assert!(wait > Duration::from_millis(800) && wait <= Duration::from_millis(850), "{wait:?}");
    }

    #[test]
    fn admin_calls_and_data_do_not_take_one_another_s_bytes() {
        let limiter = limiter(1000, 10);
        let _data = limiter.in_flight(10).expect("all of it");
        let _admin = limiter.admin_in_flight(ADMIN_BYTES_IN_FLIGHT).expect("its own bytes");
        assert_eq!(limiter.admin_in_flight(1).expect_err("over them").reason, Reason::InFlightLimited);
    }

    #[test]
    fn what_is_held_comes_back_when_the_call_ends() {
        let limiter = limiter(1000, 100);
        let mut first = limiter.in_flight(60).expect("fits");
        assert_eq!(limiter.in_flight(41).expect_err("over").reason, Reason::InFlightLimited);
        first.grow(40).expect("fits exactly");
        assert!(first.grow(1).is_ok(), "alone it may exceed the limit");
        drop(first);
        assert_eq!(limiter.bytes_in_flight(), 0);
    }

    #[test]
    fn new_limits_hold_at_once() {
        let limiter = limiter(1, 1);
        assert!(limiter.take_ingress(100).is_ok(), "larger than the burst: into debt");
        assert!(limiter.take_ingress(1).is_err());
        limiter.set_limits(TenantLimits { requests_per_second: 4, ..TenantLimits::default() });
        let (state, taken) = limiter.take_request();
        assert!(taken.is_ok());
        assert_eq!((state.per_second, state.limit, state.remaining), (4, 1, 0));
        assert!(limiter.take_request().1.is_err());
    }

    #[test]
    fn what_remains_is_never_more_than_the_limit_nor_much_less_after_one_call() {
        let limiter = TenantLimiter::new(TenantLimits { requests_per_second: 10_000, ..TenantLimits::default() });
        let (state, _) = limiter.take_request();
        assert_eq!((state.limit, state.remaining, state.per_second), (2_500, 2_499, 10_000));
    }

    #[test]
    fn administration_and_data_have_rates_of_their_own() {
        let limiter = TenantLimiter::new(TenantLimits { requests_per_second: 1, ..TenantLimits::default() });
        while limiter.take_request().1.is_ok() {}
        assert!(limiter.take_forwarded().1.is_ok(), "data that is over its limit locks nobody out");
        let refused = loop {
            if let (_, Err(error)) = limiter.take_forwarded() {
                break error;
            }
        };
        assert_eq!(refused.reason, Reason::RateLimited);
        assert!(refused.message.contains("200 admin calls a second"), "{}", refused.message);
    }
}
