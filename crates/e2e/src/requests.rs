//! Requests made from the descriptors alone: for any RPC of tenants, by gRPC and by each of its HTTP rules, with given names
//! in it. An RPC that nobody taught this file about is an error, so that a new one cannot slip past the tests that try
//! them all.

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, Value};
use rand::Rng;
use rand::distr::Alphanumeric;
use serde_json::{Map, Value as Json};
use sluice_proto::{Body, FILE_DESCRIPTOR_SET, HttpRule, Rpc};

/// Names that a request may carry; each is the full name but for `topic_uid`, `ack_id` and `page_token`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// `namespaces/{namespace}`.
    pub namespace: String,
    /// `namespaces/{namespace}/topics/{topic}`.
    pub topic: String,
    /// Uid of the topic.
    pub topic_uid: String,
    /// `serviceAccounts/{account}`.
    pub account: String,
    /// `serviceAccounts/{account}/apiKeys/{key}`.
    pub api_key: String,
    /// `operations/{operation}`.
    pub operation: String,
    /// `namespaces/{namespace}/groups/{group}`.
    pub group: String,
    /// Of a record that the group delivered.
    pub ack_id: String,
    /// Of the list that is asked; empty where the list has no further page.
    pub page_token: String,
}

impl Names {
    /// Names of the same lengths that nobody has. With `keep_parents`, only the last part is another.
    #[must_use]
    pub fn absent(&self, keep_parents: bool) -> Self {
        let other_id = |id: &str| -> String {
            // Uids are read before they are looked up; the others are only compared.
            if id.len() == 13 && id.parse::<sluice_types::Uid>().is_ok() {
                sluice_types::Uid::random().to_string()
            } else {
                let mut rng = rand::rng();
                let mut made: String =
                    std::iter::repeat_with(|| char::from(rng.random_range(b'a'..=b'z'))).take(id.len()).collect();
                if id.is_empty() {
                    made.clear();
                }
                made
            }
        };
        let child = |name: &str, parent: &str| {
            let last = name.rsplit_once('/').map_or(name, |(_, last)| last);
            let collection =
                name.strip_suffix(last).unwrap_or_default().rsplit('/').nth(1).unwrap_or_default().to_owned();
            match parent {
                "" => format!("{collection}/{}", other_id(last)),
                parent => format!("{parent}/{collection}/{}", other_id(last)),
            }
        };
        let namespace = if keep_parents { self.namespace.clone() } else { child(&self.namespace, "") };
        let account = if keep_parents { self.account.clone() } else { child(&self.account, "") };
        Self {
            topic: child(&self.topic, &namespace),
            topic_uid: other_id(&self.topic_uid),
            api_key: child(&self.api_key, &account),
            operation: child(&self.operation, ""),
            group: child(&self.group, &namespace),
            ack_id: rand::rng().sample_iter(Alphanumeric).take(self.ack_id.len()).map(char::from).collect(),
            page_token: rand::rng().sample_iter(Alphanumeric).take(self.page_token.len()).map(char::from).collect(),
            namespace,
            account,
        }
    }

    /// All of them, in the order of the fields.
    pub fn all(&self) -> [&String; 9] {
        let Self { namespace, topic, topic_uid, account, api_key, operation, group, ack_id, page_token } = self;
        [namespace, topic, topic_uid, account, api_key, operation, group, ack_id, page_token]
    }

    /// All texts in them that a request may carry, longest first, to mask what an answer repeats.
    pub fn texts(&self) -> Vec<String> {
        let mut texts: Vec<String> = self.all().into_iter().cloned().collect();
        texts.extend(self.all().iter().filter_map(|name| name.rsplit_once('/')).map(|(_, last)| last.to_owned()));
        texts.retain(|text| !text.is_empty());
        texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
        texts.dedup();
        texts
    }

    fn of_pattern(&self, pattern: &str) -> Option<&str> {
        Some(match pattern {
            "namespaces/*" => &self.namespace,
            "namespaces/*/topics/*" => &self.topic,
            "serviceAccounts/*" => &self.account,
            "serviceAccounts/*/apiKeys/*" => &self.api_key,
            "operations/*" => &self.operation,
            "namespaces/*/groups/*" => &self.group,
            _ => return None,
        })
    }
}

/// How a request takes its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// As it is.
    Real,
    /// Requests that make something without a foreign parent are only checked (`validate_only`).
    OnlyCheckCreates,
}

/// A request of one RPC, ready for both protocols.
pub struct Built {
    rpc: &'static Rpc,
    message: DynamicMessage,
    variables: Vec<(String, String)>,
}

/// A request over HTTP.
#[derive(Debug, Clone)]
pub struct HttpRequest {
    /// `GET`, ….
    pub method: String,
    /// The path with the query.
    pub path: String,
    /// The JSON body; absent: none.
    pub body: Option<Json>,
}

/// The descriptors of all our messages.
///
/// # Errors
/// If they cannot be read.
pub fn descriptors() -> Result<DescriptorPool> {
    DescriptorPool::decode(FILE_DESCRIPTOR_SET).context("read our descriptors")
}

/// Builds the request of `rpc` with these names.
///
/// # Errors
/// If the RPC has a field or a kind of name that this file does not know.
pub fn build(pool: &DescriptorPool, rpc: &'static Rpc, names: &Names, effect: Effect) -> Result<Built> {
    let kind =
        pool.get_message_by_name(rpc.request_type).with_context(|| format!("no message {}", rpc.request_type))?;
    let mut built = Built { rpc, message: DynamicMessage::new(kind.clone()), variables: Vec::new() };
    let Some(rule) = rpc.http.first() else {
        begin_stream(&mut built.message, rpc, names)?;
        return Ok(built);
    };
    let makes_a_child_of_the_tenant = rule.variables().next().is_none() && rpc.mutation;
    for field in kind.fields() {
        // The path's names are set below; they may lie within messages.
        let filled = fill(&mut built.message, rpc, &field, names)?;
        if !filled && !rule.variables().any(|variable| variable.split('.').next() == Some(field.name())) {
            bail!("{}: nothing is known of the field {}", rpc.path, field.name());
        }
        if field.name() == "validate_only" && effect == Effect::OnlyCheckCreates && makes_a_child_of_the_tenant {
            built.message.set_field(&field, Value::Bool(true));
        }
    }
    for variable in rule.variables() {
        let pattern = pattern(rule.template, variable).with_context(|| format!("{}: no {variable}", rule.template))?;
        let name = names.of_pattern(pattern).with_context(|| format!("{}: no name for {pattern}", rpc.path))?;
        set(&mut built.message, variable, name)?;
        built.variables.push((variable.to_owned(), name.to_owned()));
    }
    Ok(built)
}

/// The first message of a stream that a client sends; only these have no HTTP rule.
fn begin_stream(message: &mut DynamicMessage, rpc: &Rpc, names: &Names) -> Result<()> {
    let start = message.descriptor().get_field_by_name("start");
    let start = start.with_context(|| format!("{} has neither an HTTP rule nor a start", rpc.path))?;
    let Kind::Message(kind) = start.kind() else { bail!("{}: start is no message", rpc.path) };
    let mut first = DynamicMessage::new(kind);
    set(&mut first, "group", &names.group)?;
    message.try_set_field(&start, Value::Message(first)).map_err(|error| anyhow!("{}: {error}", rpc.path))
}

/// `namespaces/*` of `{parent=namespaces/*}`.
fn pattern<'a>(template: &'a str, variable: &str) -> Option<&'a str> {
    let from = template.find(&format!("{{{variable}="))? + variable.len() + 2;
    template[from..].split_once('}').map(|(pattern, _)| pattern)
}

fn set(message: &mut DynamicMessage, path: &str, text: &str) -> Result<()> {
    match path.split_once('.') {
        None => message
            .try_set_field_by_name(path, Value::String(text.to_owned()))
            .map_err(|error| anyhow!("{path}: {error}")),
        Some((field, rest)) => {
            let inner = message.get_field_by_name_mut(field).and_then(Value::as_message_mut);
            set(inner.with_context(|| format!("{path}: {field} is no message"))?, rest, text)
        }
    }
}

/// Sets a field that is not in the path; false if it is unknown.
fn fill(message: &mut DynamicMessage, rpc: &Rpc, field: &FieldDescriptor, names: &Names) -> Result<bool> {
    let id = |name: &str| Value::String(name.rsplit_once('/').map_or(name, |(_, id)| id).to_owned());
    let value = match (field.name(), field.kind()) {
        ("namespace_id", _) => id(&names.namespace),
        ("topic_id", _) => id(&names.topic),
        ("service_account_id", _) => id(&names.account),
        ("group_id", _) => id(&names.group),
        ("ack_ids", _) => Value::List(vec![Value::String(names.ack_id.clone())]),
        ("ids", _) => Value::List(vec![Value::String("0-0".into())]),
        ("topic", Kind::String) => Value::String(names.topic.clone()),
        ("topic_uid", _) => Value::String(names.topic_uid.clone()),
        ("page_token", _) => Value::String(names.page_token.clone()),
        ("namespace" | "topic" | "service_account" | "api_key" | "group", Kind::Message(inner)) => {
            Value::Message(resource(&inner, names)?)
        }
        ("update_mask", Kind::Message(inner)) => {
            let mut mask = DynamicMessage::new(inner);
            mask.set_field_by_name("paths", Value::List(vec![Value::String("display_name".into())]));
            // Creations have none.
            Value::Message(mask)
        }
        ("records", Kind::Message(inner)) => {
            let mut record = DynamicMessage::new(inner);
            record.set_field_by_name("value", Value::Bytes(Bytes::from_static(b"tried")));
            Value::List(vec![Value::Message(record)])
        }
        // Their defaults are fine; a fetch starts at the earliest record and does not wait.
        (
            "page_size"
            | "etag"
            | "allow_missing"
            | "request_id"
            | "validate_only"
            | "timeout"
            | "start_time"
            | "end_time"
            | "partition"
            | "partitions"
            | "offset"
            | "position"
            | "time"
            | "max_bytes"
            | "max_records"
            | "wait"
            | "isolation"
            | "encoding"
            | "topics"
            | "delay"
            | "reason"
            | "release"
            | "ack_deadline"
            | "dry_run"
            | "force"
            | "all"
            | "max_outstanding_records"
            | "max_outstanding_bytes",
            _,
        ) => return Ok(true),
        _ => return Ok(false),
    };
    // A page of nothing is the first page.
    if matches!(&value, Value::String(text) if text.is_empty()) {
        return Ok(true);
    }
    message.try_set_field(field, value).map_err(|error| anyhow!("{}: {}: {error}", rpc.path, field.name()))?;
    Ok(true)
}

/// A resource to create or change.
fn resource(kind: &MessageDescriptor, names: &Names) -> Result<DynamicMessage> {
    let mut resource = DynamicMessage::new(kind.clone());
    resource
        .try_set_field_by_name("display_name", Value::String("tried".into()))
        .map_err(|error| anyhow!("{}: {error}", kind.full_name()))?;
    // A group without topics is wrong whoever asks.
    if let Some(topics) = kind.get_field_by_name("topics") {
        resource.set_field(&topics, Value::List(vec![Value::String(names.topic.clone())]));
    }
    Ok(resource)
}

impl Built {
    /// The message for gRPC.
    pub fn message(&self) -> Vec<u8> {
        self.message.encode_to_vec()
    }

    /// The same with a page size, if the RPC is a list; `None` if not.
    ///
    /// # Errors
    /// Never; the field is a number.
    pub fn paged(&self, size: i32) -> Result<Option<Vec<u8>>> {
        let mut message = self.message.clone();
        if message.descriptor().get_field_by_name("page_size").is_none() {
            return Ok(None);
        }
        message.try_set_field_by_name("page_size", Value::I32(size)).map_err(|error| anyhow!("page_size: {error}"))?;
        Ok(Some(message.encode_to_vec()))
    }

    /// The request by one of the RPC's HTTP rules.
    ///
    /// # Errors
    /// If the names do not fit the rule.
    pub fn http(&self, rule: &HttpRule) -> Result<HttpRequest> {
        let variables: Vec<(&str, &str)> =
            self.variables.iter().map(|(field, value)| (field.as_str(), value.as_str())).collect();
        let mut path = rule.expand(&variables).map_err(|error| anyhow!("{}: {error}", self.rpc.path))?;
        let json = serde_json::to_value(&self.message)?;
        let Json::Object(mut fields) = json else { bail!("a message is an object") };
        let in_path = |field: &str| self.variables.iter().any(|(variable, _)| camel(variable) == field);
        fields.retain(|field, _| !in_path(field));
        let body = match rule.body {
            Body::None => None,
            Body::Whole => Some(Json::Object(std::mem::take(&mut fields))),
            Body::Field(field) => Some(fields.remove(&camel(field)).unwrap_or_else(|| Json::Object(Map::new()))),
        };
        let query: Vec<String> = fields
            .iter()
            .map(|(field, value)| {
                format!("{field}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            })
            .collect();
        if !query.is_empty() {
            path = format!("{path}?{}", query.join("&"));
        }
        Ok(HttpRequest { method: rule.method.to_string(), path, body })
    }
}

/// `topic_id` → `topicId`.
fn camel(name: &str) -> String {
    let mut upper = false;
    let mut made = String::new();
    for c in name.chars() {
        match c {
            '_' => upper = true,
            c if upper => {
                made.push(c.to_ascii_uppercase());
                upper = false;
            }
            c => made.push(c),
        }
    }
    made
}

/// A message of this type as JSON.
///
/// # Errors
/// If the bytes are no such message.
pub fn json_of(pool: &DescriptorPool, kind: &str, bytes: &[u8]) -> Result<Json> {
    let kind = pool.get_message_by_name(kind).with_context(|| format!("no message {kind}"))?;
    let message = DynamicMessage::decode(kind, bytes).context("decode an answer")?;
    Ok(serde_json::to_value(&message)?)
}
