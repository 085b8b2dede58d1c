//! The one place that calls librdkafka: a producer, its topics, its callbacks.
//!
//! Why not the safe wrapper: values are handed over without a copy, and the status of a report decides between "not
//! persisted" and "possibly persisted". The rules that make this sound:
//! - a record's memory is owned by its batch ([`InFlight`]); a [`Ticket`] holds one strong count of the batch from the moment
//!   librdkafka took the record until its report; without a report (a producer destroyed with records in it) the count leaks,
//!   which is safe;
//! - callbacks run on our poll thread, inside `rd_kafka_poll`, except the log callback, which touches nothing of ours;
//! - `rd_kafka_destroy` blocks, so it runs on a thread of its own, after the last handle is gone;
//! - a process may end while librdkafka's threads run, so OpenSSL must not free its tables in an exit handler: they are in use.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::RwLock;
use rdkafka_sys as sys;
use rdkafka_sys::rd_kafka_resp_err_t as Code;
use rdkafka_sys::rd_kafka_vtype_t as Field;

use crate::batch::{InFlight, Report, Slot};

const ERROR_TEXT: usize = 512;

/// What a producer tells beside reports. Called on its poll thread.
pub(crate) trait Events: Send + Sync + 'static {
    fn error(&self, code: Code, reason: &str);
}

type Opaque = Arc<dyn Events>;

/// A librdkafka producer.
pub(crate) struct Native {
    client: NonNull<sys::rd_kafka_t>,
    opaque: *mut Opaque,
}

// SAFETY: librdkafka's handles may be used from any thread; `opaque` is only read, and what it points to is Send + Sync.
unsafe impl Send for Native {}
// SAFETY: as above.
unsafe impl Sync for Native {}

/// A topic of a producer.
pub(crate) struct NativeTopic {
    topic: NonNull<sys::rd_kafka_topic_t>,
    native: Arc<Native>,
    /// Which partitions have a leader, as of the last look: the others are not to be used. Empty: look first.
    led: RwLock<Led>,
}

/// By partition, whether it has a leader. One without says nothing of the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Led(Vec<bool>);

impl Led {
    fn of(partitions: impl Iterator<Item = i32>) -> Self {
        let mut led = Vec::new();
        for at in partitions.filter_map(|partition| usize::try_from(partition).ok()) {
            if led.len() <= at {
                led.resize(at + 1, false);
            }
            led[at] = true;
        }
        Self(led)
    }

    pub(crate) fn has(&self, partition: i32) -> bool {
        usize::try_from(partition).ok().and_then(|at| self.0.get(at).copied()).unwrap_or(false)
    }

    /// The first so many partitions.
    pub(crate) fn has_first(&self, partitions: i32) -> bool {
        (0..partitions).all(|partition| self.has(partition))
    }
}

// SAFETY: topic handles are reference-counted by librdkafka and may be used from any thread.
unsafe impl Send for NativeTopic {}
// SAFETY: as above.
unsafe impl Sync for NativeTopic {}

/// What a look at a topic found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Look {
    /// These partitions have a leader.
    Led(Led),
    /// The cluster knows no such topic.
    Unknown,
    /// No answer, or no good one.
    Failed(Code),
}

impl Native {
    pub(crate) fn new(properties: &[(&'static str, String)], events: Opaque) -> Result<Arc<Self>, String> {
        // Before librdkafka does it: this way asks OpenSSL for no exit handler.
        openssl_sys::init();
        let mut text = [0 as c_char; ERROR_TEXT];
        // SAFETY: the configuration is ours until rd_kafka_new takes it; every string outlives its call; `text` is as long
        // as we say; `opaque` is freed only after the client was destroyed.
        unsafe {
            let conf = sys::rd_kafka_conf_new();
            for (name, value) in properties {
                let (Ok(c_name), Ok(c_value)) = (CString::new(*name), CString::new(value.as_str())) else {
                    sys::rd_kafka_conf_destroy(conf);
                    return Err(format!("{name} holds a zero byte"));
                };
                let set =
                    sys::rd_kafka_conf_set(conf, c_name.as_ptr(), c_value.as_ptr(), text.as_mut_ptr(), ERROR_TEXT);
                if set != sys::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK {
                    sys::rd_kafka_conf_destroy(conf);
                    return Err(string(text.as_ptr()));
                }
            }
            let opaque = Box::into_raw(Box::new(events));
            sys::rd_kafka_conf_set_opaque(conf, opaque.cast());
            sys::rd_kafka_conf_set_dr_msg_cb(conf, Some(on_report));
            sys::rd_kafka_conf_set_error_cb(conf, Some(on_error));
            sys::rd_kafka_conf_set_log_cb(conf, Some(on_log));
            let client =
                sys::rd_kafka_new(sys::rd_kafka_type_t::RD_KAFKA_PRODUCER, conf, text.as_mut_ptr(), ERROR_TEXT);
            match NonNull::new(client) {
                Some(client) => Ok(Arc::new(Self { client, opaque })),
                None => {
                    sys::rd_kafka_conf_destroy(conf);
                    drop(Box::from_raw(opaque));
                    Err(string(text.as_ptr()))
                }
            }
        }
    }

    fn ptr(&self) -> *mut sys::rd_kafka_t {
        self.client.as_ptr()
    }

    /// Serves callbacks for at most `wait`.
    pub(crate) fn poll(&self, wait: Duration) {
        // SAFETY: the client lives as long as `self`.
        unsafe { sys::rd_kafka_poll(self.ptr(), millis(wait)) };
    }

    /// Records and callbacks outstanding.
    pub(crate) fn outstanding(&self) -> i32 {
        // SAFETY: the client lives as long as `self`.
        unsafe { sys::rd_kafka_outq_len(self.ptr()) }
    }

    /// Gives up everything outstanding; the reports follow through `poll`.
    pub(crate) fn purge(&self) {
        let flags = sys::RD_KAFKA_PURGE_F_QUEUE | sys::RD_KAFKA_PURGE_F_INFLIGHT | sys::RD_KAFKA_PURGE_F_NON_BLOCKING;
        // SAFETY: the client lives as long as `self`.
        unsafe { sys::rd_kafka_purge(self.ptr(), flags) };
    }

    /// Tells it brokers, `host:port` with commas between. Those that it knows stay as they are.
    pub(crate) fn add_brokers(&self, brokers: &str) {
        let Ok(brokers) = CString::new(brokers) else { return };
        // SAFETY: the client lives as long as `self`; the list is a C string, copied during the call.
        unsafe { sys::rd_kafka_brokers_add(self.ptr(), brokers.as_ptr()) };
    }

    /// What a fatal idempotence error does.
    #[cfg(test)]
    pub(crate) fn fail(&self) {
        // SAFETY: the client lives as long as `self`; the reason is a C string.
        unsafe {
            let code = Code::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
            sys::rd_kafka_test_fatal_error(self.ptr(), code, c"a test".as_ptr());
        }
    }

    /// A handle for a topic, known or not.
    pub(crate) fn topic(self: &Arc<Self>, name: &str) -> Option<NativeTopic> {
        let name = CString::new(name).ok()?;
        // SAFETY: the name outlives the call; a null configuration means the defaults.
        let topic = unsafe { sys::rd_kafka_topic_new(self.ptr(), name.as_ptr(), ptr::null_mut()) };
        let topic = NonNull::new(topic)?;
        Some(NativeTopic { topic, native: Arc::clone(self), led: RwLock::default() })
    }

    /// Whether a broker answers. Blocks for at most `wait`.
    pub(crate) fn probe(&self, topic: Option<&NativeTopic>, wait: Duration) -> bool {
        !matches!(self.metadata(topic, wait), Look::Failed(_))
    }

    /// Asks a broker about one topic, or about none. Blocks for at most `wait`.
    fn metadata(&self, topic: Option<&NativeTopic>, wait: Duration) -> Look {
        let mut answer: *const sys::rd_kafka_metadata = ptr::null();
        let handle = topic.map_or(ptr::null_mut(), |topic| topic.topic.as_ptr());
        // SAFETY: client and topic live; `answer` is set on success and freed below; the arrays have the lengths beside them.
        unsafe {
            let code = sys::rd_kafka_metadata(self.ptr(), 0, handle, &raw mut answer, millis(wait));
            if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Look::Failed(code);
            }
            let look = match (topic, (*answer).topic_cnt) {
                (Some(_), 1) => look_at(&*(*answer).topics),
                (Some(_), _) => Look::Unknown,
                (None, _) => Look::Led(Led::default()),
            };
            sys::rd_kafka_metadata_destroy(answer);
            look
        }
    }
}

/// Which partitions of a metadata answer have a leader.
///
/// # Safety
/// `topic` is part of a metadata answer that was not freed.
unsafe fn look_at(topic: &sys::rd_kafka_metadata_topic) -> Look {
    if topic.err == Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART {
        return Look::Unknown;
    }
    if topic.err != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Look::Failed(topic.err);
    }
    // SAFETY: librdkafka's array has that length.
    let partitions = unsafe { slice(topic.partitions, topic.partition_cnt) };
    Look::Led(Led::of(partitions.iter().filter(|partition| partition.leader >= 0).map(|partition| partition.id)))
}

impl Drop for Native {
    fn drop(&mut self) {
        struct Parts(*mut sys::rd_kafka_t, *mut Opaque);
        // SAFETY: nobody else has these pointers any more; they move to the thread that frees them.
        unsafe impl Send for Parts {}
        let parts = Parts(self.ptr(), self.opaque);
        let destroy = move || {
            let parts = parts;
            // SAFETY: the last handle is gone, so nothing uses the client; its callbacks end with it.
            unsafe {
                sys::rd_kafka_destroy(parts.0);
                drop(Box::from_raw(parts.1));
            }
        };
        if let Err(error) = std::thread::Builder::new().name("kafka-reaper".into()).spawn(destroy) {
            tracing::warn!(%error, "no thread to close a producer; it leaks");
        }
    }
}

impl NativeTopic {
    /// Asks a broker about it and keeps the answer. Blocks for at most `wait`.
    pub(crate) fn look(&self, wait: Duration) -> Look {
        let look = self.native.metadata(Some(self), wait);
        match &look {
            Look::Led(led) => *self.led.write() = led.clone(),
            Look::Unknown => self.distrust(),
            Look::Failed(_) => {}
        }
        look
    }

    /// Whether this partition may be used, as of the last look.
    pub(crate) fn is_led(&self, partition: i32) -> bool {
        self.led.read().has(partition)
    }

    /// Whether so many partitions, counted from 0, may be used, as of the last look.
    pub(crate) fn are_led(&self, partitions: i32) -> bool {
        self.led.read().has_first(partitions)
    }

    /// What is known of its leaders may be wrong: no partition is used before the next look.
    pub(crate) fn distrust(&self) {
        *self.led.write() = Led::default();
    }

    /// Hands a claimed record over. Its report will come through the batch, unless this fails.
    pub(crate) fn produce(&self, batch: &Arc<InFlight>, index: usize) -> Result<(), Code> {
        let record = &batch.records[index];
        let headers = headers(&record.headers)?;
        let (value, value_len) = raw(record.value.as_deref());
        let (key, key_len) = raw(record.key.as_deref());
        let ticket = Ticket::into_raw(batch, index);
        // SAFETY: the fields come in the types that librdkafka documents. Flags 0: it neither copies nor frees the value,
        // which the ticket keeps alive until the report; the key is always copied. On success it owns the headers.
        unsafe {
            let code = sys::rd_kafka_producev(
                self.native.ptr(),
                Field::RD_KAFKA_VTYPE_RKT,
                self.topic.as_ptr(),
                Field::RD_KAFKA_VTYPE_PARTITION,
                record.partition,
                Field::RD_KAFKA_VTYPE_MSGFLAGS,
                0 as c_int,
                Field::RD_KAFKA_VTYPE_VALUE,
                value,
                value_len,
                Field::RD_KAFKA_VTYPE_KEY,
                key,
                key_len,
                Field::RD_KAFKA_VTYPE_OPAQUE,
                ticket,
                Field::RD_KAFKA_VTYPE_TIMESTAMP,
                record.timestamp_ms,
                Field::RD_KAFKA_VTYPE_HEADERS,
                headers,
                Field::RD_KAFKA_VTYPE_END,
            );
            if code == Code::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Ok(());
            }
            if !headers.is_null() {
                sys::rd_kafka_headers_destroy(headers);
            }
            drop(Ticket::from_raw(ticket));
            Err(code)
        }
    }
}

impl Drop for NativeTopic {
    fn drop(&mut self) {
        // SAFETY: ours since rd_kafka_topic_new; records in flight keep their own count.
        unsafe { sys::rd_kafka_topic_destroy(self.topic.as_ptr()) };
    }
}

/// A record in librdkafka's hands: a strong count of its batch, and its position.
struct Ticket {
    batch: Arc<InFlight>,
    index: usize,
}

impl Ticket {
    /// The pointer is that of the record's slot, which knows its batch: no allocation per record.
    fn into_raw(batch: &Arc<InFlight>, index: usize) -> *mut c_void {
        let slot = &batch.slots[index];
        slot.owner.store(Arc::into_raw(Arc::clone(batch)).cast_mut(), Ordering::Release);
        ptr::from_ref(slot).cast_mut().cast()
    }

    /// # Safety
    /// `raw` comes from [`Ticket::into_raw`] and was not taken back yet.
    unsafe fn from_raw(raw: *mut c_void) -> Self {
        // SAFETY: the strong count in `owner` keeps batch and slot alive.
        unsafe {
            let slot: *const Slot = raw.cast();
            let batch = Arc::from_raw((*slot).owner.load(Ordering::Acquire).cast_const());
            let index = slot.offset_from_unsigned(batch.slots.as_ptr());
            Self { batch, index }
        }
    }
}

unsafe extern "C" fn on_report(
    _client: *mut sys::rd_kafka_t,
    message: *const sys::rd_kafka_message_t,
    _opaque: *mut c_void,
) {
    // SAFETY: librdkafka passes a message of ours that is valid during the call; its `_private` is our ticket, reported once.
    let (ticket, report) = unsafe {
        let message = &*message;
        let report = Report {
            code: message.err,
            status: sys::rd_kafka_message_status(message),
            offset: message.offset,
            timestamp_ms: sys::rd_kafka_message_timestamp(message, ptr::null_mut()),
        };
        (Ticket::from_raw(message._private), report)
    };
    ticket.batch.reported(ticket.index, &report);
}

unsafe extern "C" fn on_error(_client: *mut sys::rd_kafka_t, code: c_int, reason: *const c_char, opaque: *mut c_void) {
    // SAFETY: `opaque` is what Native::new set, alive until after the client's end; the reason is a C string or null.
    let (events, reason) = unsafe { (&*opaque.cast::<Opaque>().cast_const(), string(reason)) };
    events.error(known_code(code), &reason);
}

unsafe extern "C" fn on_log(
    _client: *const sys::rd_kafka_t,
    level: c_int,
    facility: *const c_char,
    text: *const c_char,
) {
    // SAFETY: C strings or null, valid during the call.
    let (facility, text) = unsafe { (string(facility), string(text)) };
    match level {
        0..=3 => tracing::warn!(target: "librdkafka", facility, "{text}"),
        4..=5 => tracing::info!(target: "librdkafka", facility, "{text}"),
        _ => tracing::debug!(target: "librdkafka", facility, "{text}"),
    }
}

/// The few codes of the error callback that mean something to us; the others are news for the log.
fn known_code(code: c_int) -> Code {
    let known = [Code::RD_KAFKA_RESP_ERR__FATAL, Code::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN];
    known.into_iter().find(|known| *known as c_int == code).unwrap_or(Code::RD_KAFKA_RESP_ERR__TRANSPORT)
}

fn headers(headers: &[(bytes::Bytes, Option<bytes::Bytes>)]) -> Result<*mut sys::rd_kafka_headers_t, Code> {
    if headers.is_empty() {
        return Ok(ptr::null_mut());
    }
    // SAFETY: librdkafka copies names and values during the call; lengths are those of the slices.
    unsafe {
        let native = sys::rd_kafka_headers_new(headers.len());
        for (name, value) in headers {
            let (value, value_len) = raw(value.as_deref());
            let name_len = name.len() as isize;
            let code = sys::rd_kafka_header_add(
                native,
                name.as_ptr().cast(),
                name_len,
                value.cast_const(),
                value_len as isize,
            );
            if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
                sys::rd_kafka_headers_destroy(native);
                return Err(code);
            }
        }
        Ok(native)
    }
}

/// Null for `None`; never null for an empty slice.
fn raw(bytes: Option<&[u8]>) -> (*mut c_void, usize) {
    bytes.map_or((ptr::null_mut(), 0), |bytes| (bytes.as_ptr().cast_mut().cast(), bytes.len()))
}

fn millis(wait: Duration) -> c_int {
    c_int::try_from(wait.as_millis()).unwrap_or(c_int::MAX)
}

/// # Safety
/// `text` is null or a C string.
unsafe fn string(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as required of the caller.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// # Safety
/// `count` elements are at `first`, or it is null.
unsafe fn slice<'a, T>(first: *const T, count: c_int) -> &'a [T] {
    if first.is_null() {
        return &[];
    }
    // SAFETY: as required of the caller.
    unsafe { std::slice::from_raw_parts(first, usize::try_from(count).unwrap_or(0)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_without_a_leader_does_not_hide_the_others() {
        let led = Led::of([5, 0, 2].into_iter());
        let usable: Vec<i32> = (-1..8).filter(|partition| led.has(*partition)).collect();
        assert_eq!(usable, [0, 2, 5]);
        assert!(led.has_first(1) && !led.has_first(2));
        assert!(!Led::default().has(0));
    }
}
