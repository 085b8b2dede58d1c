//! A tenant never learns of another's things, and no route works without the right credential. Every RPC and route comes
//! from the descriptors, so a new one is tried, too.

mod exchange;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prost_reflect::DescriptorPool;
use sluice_e2e::consumer::ack_ids;
use sluice_e2e::raw;
use sluice_e2e::requests::{self, Effect, Names};
use sluice_e2e::tenant::record;
use sluice_e2e::{Api, Installation, Options, Tenant, bad_keys, wait};
use sluice_proto::admin::v1::operation_service_client::OperationServiceClient;
use sluice_proto::admin::v1::topic_service_client::TopicServiceClient;
use sluice_proto::admin::v1::{CreateTopicRequest, Group, ListOperationsRequest, RetryPolicy, Role, Topic};
use sluice_proto::stream::v1::{Header, header};
use sluice_proto::{Audience, RPCS, Rpc};

use self::exchange::{exchanges, masked, replaced, tenants_rpcs};

/// Calls about none of the tenant's resources: a grant on anything is enough.
const ABOUT_NO_RESOURCE: &[&str] = &["/sluice.server.v1.ServerService/GetServerInfo"];

/// What tenant A has, with a word in each place that must never reach anybody else.
struct Owned {
    tenant: Tenant,
    names: Names,
    canaries: Vec<String>,
}

/// Makes words that occur nowhere else.
struct Canaries(Vec<String>);

impl Canaries {
    fn word(&mut self) -> String {
        let word: String = (0..12).map(|_| char::from(rand::random_range(b'g'..=b'z'))).collect();
        let word = format!("q{word}");
        self.0.push(word.clone());
        word
    }
}

async fn owned(it: &Installation) -> Result<Owned> {
    let tenant = it.tenant("acme").await?;
    let api = it.api(0, &tenant.key)?;
    let mut canaries = Canaries(Vec::new());
    let namespace_id = format!("n{}", canaries.word());
    let namespace = api.create_namespace(&namespace_id).await?;
    api.create_namespace(&format!("n{}", canaries.word())).await?;
    let mut topics = Vec::new();
    for _ in 0..2 {
        let request = CreateTopicRequest {
            parent: namespace.name.clone(),
            topic_id: format!("t{}", canaries.word()),
            topic: Some(Topic {
                partition_count: Some(1),
                display_name: canaries.word(),
                labels: [(canaries.word(), canaries.word())].into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let operation = TopicServiceClient::new(api.channel.clone()).create_topic(api.request(request)).await?;
        let topic: Topic = sluice_e2e::tenant::finished(operation.into_inner())?;
        let mut one = record(Some(canaries.word().as_bytes()), canaries.word().as_bytes());
        let value = header::Value::Text(canaries.word());
        one.headers = vec![Header { name: canaries.word(), value: Some(value) }];
        api.produce_all(&topic.name, vec![one]).await?;
        topics.push(topic);
    }
    let account = api.create_account(&format!("a{}", canaries.word()), Role::Developer, "*").await?;
    api.create_account(&format!("a{}", canaries.word()), Role::Viewer, "*").await?;
    let account_id = account.name.rsplit_once('/').map(|(_, id)| id.to_owned()).context("an account's name")?;
    let key = api.create_key(&account_id).await?;
    let other = api.create_key(&account_id).await?;
    canaries.0.extend([key.key.clone(), other.key.clone(), tenant.key.clone(), key.uid.clone(), other.uid.clone()]);
    canaries.0.extend([account.uid.clone(), namespace.uid.clone(), tenant.uid.clone()]);
    canaries.0.extend(topics.iter().map(|topic| topic.uid.clone()));
    let mut operations = OperationServiceClient::new(api.channel.clone());
    let listed = operations.list_operations(api.request(ListOperationsRequest::default())).await?.into_inner();
    let operation = listed.operations.first().context("an operation")?.name.clone();
    wait::until("usage of both topics", Duration::from_secs(30), async || {
        Ok((api.usage("").await?.len() >= 2).then_some(()))
    })
    .await?;
    let (group, ack_id) = consumed(&api, &namespace_id, [&topics[0], &topics[1]], &mut canaries).await?;
    let names = Names {
        group,
        ack_id,
        namespace: namespace.name,
        topic: topics[0].name.clone(),
        topic_uid: topics[0].uid.clone(),
        account: account.name,
        api_key: key.name,
        operation,
        page_token: String::new(),
    };
    Ok(Owned { tenant, names, canaries: canaries.0 })
}

/// Groups with a consumer, a record out and two dead letters: the name of one, and the id of the record that is out.
async fn consumed(
    api: &Api,
    namespace: &str,
    [topic, other]: [&Topic; 2],
    canaries: &mut Canaries,
) -> Result<(String, String)> {
    let dead = api.create_topic(namespace, &format!("t{}", canaries.word()), 1).await?;
    let of = |topic: &Topic, canaries: &mut Canaries| Group {
        topics: vec![topic.name.clone()],
        display_name: canaries.word(),
        labels: [(canaries.word(), canaries.word())].into(),
        dead_letter_topic: dead.name.clone(),
        retry_policy: Some(RetryPolicy { max_attempts: 1, ..RetryPolicy::default() }),
        ..Group::default()
    };
    let shape = of(topic, canaries);
    let group = api.create_group(namespace, &format!("g{}", canaries.word()), shape).await?;
    let shape = of(other, canaries);
    let second = api.create_group(namespace, &format!("g{}", canaries.word()), shape).await?;
    canaries.0.extend([group.uid.clone(), second.uid.clone(), dead.uid]);
    let more = (0..2).map(|_| record(Some(canaries.word().as_bytes()), canaries.word().as_bytes())).collect();
    api.produce_all(&topic.name, more).await?;
    let mut out = Vec::new();
    wait::until("three records", Duration::from_secs(20), async || {
        out.extend(api.pull(&group.name, 10, Duration::from_secs(1)).await?.records);
        Ok((out.len() == 3).then_some(()))
    })
    .await?;
    let refused = ack_ids(&out[1..]);
    api.nack(&group.name, refused, None, &canaries.word()).await?;
    wait::until("two dead letters", Duration::from_secs(20), async || {
        let metadata = api.fetch(&dead.name, 0, 0, Duration::ZERO).await?;
        Ok((metadata.records.len() == 2).then_some(()))
    })
    .await?;
    Ok((group.name, out[0].ack_id.clone()))
}

/// The token of the second page of A's list; empty if the RPC is no list.
async fn page_token(it: &Installation, pool: &DescriptorPool, rpc: &'static Rpc, a: &Owned) -> Result<String> {
    let built = requests::build(pool, rpc, &a.names, Effect::Real)?;
    let Some(message) = built.paged(1)? else { return Ok(String::new()) };
    // Usage of one topic has one page.
    let message = match rpc.request_type {
        "sluice.billing.v1.GetUsageRequest" => {
            let mut all = a.names.clone();
            (all.topic, all.topic_uid) = (String::new(), String::new());
            requests::build(pool, rpc, &all, Effect::Real)?.paged(1)?.context("a list")?
        }
        _ => message,
    };
    let bearer = format!("Bearer {}", a.tenant.key);
    let channel = it.api(0, "none")?.channel;
    let answer = raw::grpc(&channel, rpc.path, &[("authorization", &bearer)], &message, false).await?;
    ensure!(answer.grpc_code() == Some(0), "{} as its owner: {}", rpc.path, answer.shown());
    let json = requests::json_of(pool, rpc.response_type, &answer.body)?;
    let token = json["nextPageToken"].as_str().unwrap_or_default().to_owned();
    ensure!(!token.is_empty(), "{}: the owner's list has one page only: {json}", rpc.path);
    Ok(token)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_tenant_has_looks_exactly_like_nothing() -> Result<()> {
    let it = Installation::start(Options { gateways: 1, ..Options::default() }).await?;
    let pool = requests::descriptors()?;
    let a = owned(&it).await?;
    let b = it.tenant("bolt").await?;
    let bearer = format!("Bearer {}", b.key);
    let mut faults = Vec::new();
    let mut compared = 0;
    let mut answers = 0;
    // First B has nothing of the kind; then it has the same parents, so that a call gets as far as the child.
    for same_parents in [false, true] {
        if same_parents {
            let api = it.api(0, &b.key)?;
            let id = |name: &str| name.rsplit_once('/').map(|(_, id)| id.to_owned()).unwrap_or_default();
            api.create_namespace(&id(&a.names.namespace)).await?;
            api.create_account(&id(&a.names.account), Role::Viewer, "*").await?;
        }
        for rpc in tenants_rpcs() {
            let theirs = Names { page_token: page_token(&it, &pool, rpc, &a).await?, ..a.names.clone() };
            let deep = rpc.http.first().is_none_or(|rule| rule.template.matches('*').count() > 1);
            let within_own_parent = deep || !theirs.page_token.is_empty();
            if same_parents && !within_own_parent {
                continue;
            }
            let nobodys = theirs.absent(same_parents);
            let of_a = exchanges(&it, &pool, rpc, &theirs, Some(&bearer), Effect::OnlyCheckCreates).await?;
            let of_nobody = exchanges(&it, &pool, rpc, &nobodys, Some(&bearer), Effect::OnlyCheckCreates).await?;
            for (one, other) in of_a.iter().zip(&of_nobody) {
                let (left, right) = (masked(one, &pool, rpc)?, masked(other, &pool, rpc)?);
                compared += 1;
                answers += 2;
                if left != right {
                    faults.push(format!(
                        "{} differs:\n  A's:    {}\n  absent: {}",
                        one.label,
                        left.shown(),
                        right.shown()
                    ));
                }
                let names_a_resource = rpc.http.first().is_none_or(|rule| rule.variables().next().is_some());
                if names_a_resource && one.ok {
                    faults.push(format!("{} succeeded: {}", one.label, one.answer.shown()));
                }
                for (answer, label) in [(&left, "A's"), (&right, "absent")] {
                    let bytes = answer.all_bytes();
                    let leaked = a.canaries.iter().find(|word| bytes.windows(word.len()).any(|w| w == word.as_bytes()));
                    if let Some(word) = leaked {
                        faults.push(format!("{} ({label}) tells {word}: {}", one.label, answer.shown()));
                    }
                }
            }
        }
    }
    println!("{compared} pairs compared, {answers} answers searched for {} canaries", a.canaries.len());
    // B's own lists, which have nothing of A's either.
    let lists_all = |rpc: &&Rpc| rpc.http.first().is_some_and(|rule| rule.variables().next().is_none());
    for rpc in tenants_rpcs().filter(|rpc| lists_all(rpc) && !rpc.mutation) {
        let nothing = Names {
            namespace: String::new(),
            topic: String::new(),
            topic_uid: String::new(),
            account: String::new(),
            api_key: String::new(),
            operation: String::new(),
            group: String::new(),
            ack_id: String::new(),
            page_token: String::new(),
        };
        for own in exchanges(&it, &pool, rpc, &nothing, Some(&bearer), Effect::Real).await? {
            // The names that B gave its own namespace and account are B's.
            let id = |name: &str| name.rsplit_once('/').map(|(_, id)| id.to_owned()).unwrap_or_default();
            let bytes = replaced(&own.answer.all_bytes(), &id(&a.names.namespace));
            let bytes = replaced(&bytes, &id(&a.names.account));
            if let Some(word) = a.canaries.iter().find(|word| bytes.windows(word.len()).any(|w| w == word.as_bytes())) {
                faults.push(format!("{} tells {word}", own.label));
            }
            if !own.ok {
                faults.push(format!("{} of B's own: {}", own.label, own.answer.shown()));
            }
        }
    }
    ensure!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    unharmed(&it, &a).await?;
    it.stop().await
}

/// A's things are as they were.
async fn unharmed(it: &Installation, a: &Owned) -> Result<()> {
    let api: Api = it.api(0, &a.tenant.key)?;
    let read = api.fetch(&a.names.topic, 0, 0, Duration::ZERO).await?;
    ensure!(read.records.len() == 3 && read.end_offset == 3, "{read:?}");
    let key = a.canaries.iter().find(|word| word.starts_with("sl_")).context("A's key")?;
    it.api(0, key)?.produce_all(&a.names.topic, vec![record(None, b"still mine")]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_route_works_with_a_wrong_credential() -> Result<()> {
    let it = Installation::start(Options { gateways: 1, ..Options::default() }).await?;
    let pool = requests::descriptors()?;
    let a = owned(&it).await?;
    let api = it.api(0, &a.tenant.key)?;
    api.create_account("gone", Role::Owner, "*").await?;
    let revoked = api.create_key("gone").await?;
    api.revoke_key(&revoked.name).await?;
    let operator = std::fs::read_to_string(&it.local.operator_token_file)?;
    let bearer = |key: &str| Some(format!("Bearer {key}"));
    let wrong = [
        ("none", None),
        ("empty", Some("Bearer ".to_owned())),
        ("another scheme", Some(format!("Basic {}", a.tenant.key))),
        ("no scheme", Some(a.tenant.key.clone())),
        ("malformed", bearer("sl_dev_hello")),
        ("bad checksum", bearer(&bad_keys::with_bad_checksum(&a.tenant.key)?)),
        ("unknown id", bearer(&bad_keys::unknown())),
        ("wrong secret", bearer(&bad_keys::with_other_secret(&a.tenant.key)?)),
        ("revoked", bearer(&revoked.key)),
        ("the operator's", bearer(operator.trim())),
    ];
    let mut faults = Vec::new();
    let mut tried = 0;
    for rpc in tenants_rpcs() {
        for (what, authorization) in &wrong {
            for refused in exchanges(&it, &pool, rpc, &a.names, authorization.as_deref(), Effect::Real).await? {
                tried += 1;
                let fits = match refused.answer.grpc_code() {
                    Some(code) => code == 16,
                    None => refused.answer.status == 401,
                };
                if !fits {
                    faults.push(format!("{} with {what}: {}", refused.label, refused.answer.shown()));
                }
            }
        }
    }
    println!("{tried} calls with wrong credentials");

    // A principal that may do nothing, and one that may do everything somewhere else.
    api.create_namespace("elsewhere").await?;
    sluice_proto::admin::v1::service_account_service_client::ServiceAccountServiceClient::new(api.channel.clone())
        .create_service_account(api.request(sluice_proto::admin::v1::CreateServiceAccountRequest {
            service_account_id: "nobody".into(),
            service_account: Some(Default::default()),
            ..Default::default()
        }))
        .await?;
    api.create_account("stranger", Role::Developer, "namespaces/elsewhere").await?;
    for account in ["nobody", "stranger"] {
        let key = api.create_key(account).await?;
        for rpc in tenants_rpcs().filter(|rpc| account == "nobody" || !ABOUT_NO_RESOURCE.contains(&rpc.path)) {
            for refused in exchanges(&it, &pool, rpc, &a.names, bearer(&key.key).as_deref(), Effect::Real).await? {
                let fits = match refused.answer.grpc_code() {
                    Some(code) => matches!(code, 5 | 7),
                    None => matches!(refused.answer.status, 403 | 404),
                };
                if !fits {
                    faults.push(format!("{} as {account}: {}", refused.label, refused.answer.shown()));
                }
            }
        }
    }

    // What is not for tenants is not on their listener, and the operator's listener takes no tenant's key.
    let owner = format!("Bearer {}", a.tenant.key);
    let (public, operators) = (it.api(0, "none")?.channel, Api::new(&it.local.operator, "none")?.channel);
    for rpc in RPCS.iter().filter(|rpc| rpc.audience != Audience::Tenant) {
        let answer = raw::grpc(&public, rpc.path, &[("authorization", &owner)], &[], false).await?;
        if answer.grpc_code() != Some(12) {
            faults.push(format!("{} on the tenants' listener: {}", rpc.path, answer.shown()));
        }
        if rpc.audience == Audience::Operator {
            for authorization in [None, Some(owner.as_str()), Some("Bearer "), Some("Bearer x"), Some(operator.trim())]
            {
                let metadata: Vec<(&str, &str)> =
                    authorization.map(|value| ("authorization", value)).into_iter().collect();
                let answer = raw::grpc(&operators, rpc.path, &metadata, &[], false).await?;
                if answer.grpc_code() != Some(16) {
                    faults.push(format!("{} for the operator with {authorization:?}: {}", rpc.path, answer.shown()));
                }
            }
        }
    }
    ensure!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    unharmed(&it, &a).await?;
    it.stop().await
}

#[test]
fn every_rpc_of_tenants_can_be_tried() -> Result<()> {
    let pool = requests::descriptors()?;
    let names = Names {
        namespace: "namespaces/prod".into(),
        topic: "namespaces/prod/topics/orders".into(),
        topic_uid: "aaaaaaaaaaaaa".into(),
        account: "serviceAccounts/ci".into(),
        api_key: "serviceAccounts/ci/apiKeys/aaaaaaaaaaaaa".into(),
        operation: "operations/aaaaaaaaaaaaa".into(),
        group: "namespaces/prod/groups/billing".into(),
        ack_id: "an id".into(),
        page_token: "token".into(),
    };
    for absent in [names.absent(false), names.absent(true)] {
        for (one, other) in names.all().into_iter().zip(absent.all()) {
            ensure!(one.len() == other.len() || one.is_empty(), "{one} and {other} have other lengths");
        }
        ensure!(absent.topic != names.topic && absent.api_key != names.api_key, "{absent:?}");
    }
    let mut tried = 0;
    for rpc in tenants_rpcs() {
        let built = requests::build(&pool, rpc, &names, Effect::Real)?;
        for rule in rpc.http {
            built.http(rule)?;
        }
        tried += 1;
    }
    ensure!(tried > 20, "{tried} RPCs of tenants");
    Ok(())
}
