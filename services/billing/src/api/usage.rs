//! GetUsage: what was counted, from the database, beside where the logs end, from Kafka.
//!
//! A page takes a few queries, each for many topics, and one question per topic to Kafka. It ends early when its answer
//! grows large.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::StreamExt as _;
use sluice_db::{Database, DbError, Kind, TenantTx, Turns};
use sluice_proto::billing::v1::usage_service_server::UsageService;
use sluice_proto::billing::v1::{GetUsageRequest, GetUsageResponse, HourUsage, TopicUsage, UsageTotals};
use sluice_proto::internal::control::v1::Life;
use sluice_proto::wkt::Timestamp;
use sluice_runtime::statuses::to_tonic;
use sluice_types::{Error, ErrorKind, OpContext, Reason, TopicUid};

use crate::domain::fold::Amounts;
use crate::domain::page_token::{After, Binding, TokenKey};
use crate::domain::query::{Query, authorize};
use crate::domain::report::{self, LogEnd, Stored};
use crate::log_ends::{LogEnds, Look, Wanted};
use crate::store::usage::{TopicFilter, TopicRow, coverage_list, hour_list, topic_list};

/// How long Kafka may take to say where logs end.
const LOG_ENDS_WITHIN: Duration = Duration::from_secs(2);
/// Topics whose ends are asked for at once.
const LOG_ENDS_AT_ONCE: usize = 16;
/// Hours and ranges in one answer, roughly; about 1 MiB encoded.
const PAGE_WEIGHT_MAX: usize = 50_000;
/// Topics of the first query of a page; the next ones take as many as the answer has room for by then.
const TOPICS_FIRST: usize = 16;
/// Topics of one query.
const TOPICS_MAX: usize = 500;
/// Kept of the caller's time for the way back.
const RESERVE: Duration = Duration::from_millis(50);
const HOUR_SECONDS: i64 = 3_600;

/// The service.
#[derive(Clone)]
pub struct Usage {
    database: Database,
    ends: LogEnds,
    token_key: TokenKey,
    turns: Turns,
}

/// A topic with all that the database knows of it.
struct Counted {
    topic: TopicRow,
    hours: Vec<(i64, Amounts)>,
    coverage: BTreeMap<i32, Stored>,
}

impl Counted {
    /// Hours and ranges.
    fn weight(&self) -> usize {
        self.hours.len() + 2 * self.coverage.values().map(|stored| stored.ranges.len()).sum::<usize>()
    }
}

impl Usage {
    /// Over this database and the clusters with the tenants' topics.
    pub fn new(database: Database, ends: LogEnds, token_key: TokenKey) -> Self {
        Self { database, ends, token_key, turns: Turns::default() }
    }

    async fn answer(&self, context: &OpContext, request: &GetUsageRequest) -> Result<GetUsageResponse, Error> {
        let query = Query::parse(request, now_ms())?;
        authorize(&context.principal.grants, &request.topic)?;
        let (tenant, account) = (context.tenant.uid().to_string(), context.principal.account.to_string());
        let (start, end) = (text_of(request.start_time), text_of(request.end_time));
        let arguments = [request.topic.as_str(), &request.topic_uid, &start, &end];
        let binding = Binding { tenant: &tenant, account: &account, arguments: &arguments };
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(self.token_key.open(binding, token)?),
        };
        let first_page = after.is_none();
        let (counted, more) = self.read(context, &query, after).await?;
        if counted.is_empty() && first_page && query.topic.is_some() {
            return Err(Error::not_found(&request.topic));
        }
        let next_page_token = match counted.last() {
            Some(Counted { topic, .. }) if more => self.token_key.seal(
                binding,
                &After {
                    namespace_id: topic.namespace_id.clone(),
                    topic_id: topic.id.clone(),
                    topic_uid: topic.uid.as_i64(),
                },
            ),
            _ => String::new(),
        };
        let within = context.remaining().saturating_sub(RESERVE).min(LOG_ENDS_WITHIN);
        let look = &self.ends.look();
        let topics = futures::stream::iter(counted)
            .map(|counted| async move {
                let ends = log_ends(look, &counted.topic, within).await;
                topic_usage(counted, &ends)
            })
            .buffered(LOG_ENDS_AT_ONCE)
            .collect()
            .await;
        Ok(GetUsageResponse { topics, next_page_token })
    }

    /// The page from the database, and whether there are topics behind it.
    async fn read(
        &self,
        context: &OpContext,
        query: &Query,
        after: Option<After>,
    ) -> Result<(Vec<Counted>, bool), Error> {
        let filter = TopicFilter {
            name: query.topic.as_ref().map(|(namespace, topic)| (namespace.to_string(), topic.to_string())),
            uid: query.topic_uid,
            after,
            limit: i64::from(query.page_size) + 1,
        };
        let (from, to) = (query.from_hour, query.to_hour);
        let (database, scope) = (self.database.clone(), context.tenant.clone());
        let page_size = usize::try_from(query.page_size).unwrap_or_default();
        // Kept until the connection is given back, also when the caller went away.
        let turn = self.turns.take(context.tenant.uid(), Kind::Read, context.deadline).await?;
        let reading = self.database.run(async move {
            let _turn = turn;
            let mut tx = database.tenant(&scope).await?;
            let topics = topic_list(&mut tx, &filter).await?;
            let mut more = topics.len() > page_size;
            let (mut page, mut weight) = (Vec::new(), 0);
            let mut rest = &topics[..topics.len().min(page_size)];
            while !rest.is_empty() {
                if weight > PAGE_WEIGHT_MAX {
                    more = true;
                    break;
                }
                let (some, behind) = rest.split_at(at_a_time(page.len(), weight).min(rest.len()));
                rest = behind;
                for counted in read_topics(&mut tx, some, from, to).await? {
                    if weight > PAGE_WEIGHT_MAX {
                        more = true;
                        break;
                    }
                    weight += counted.weight();
                    page.push(counted);
                }
            }
            tx.rollback().await?;
            Ok::<_, DbError>((page, more))
        });
        match tokio::time::timeout(context.remaining(), reading).await {
            Ok(page) => page.map_err(|error| error.into_error(Reason::BillingUnavailable)),
            Err(_) => Err(Error::new(
                ErrorKind::DeadlineExceeded,
                Reason::DeadlineExceeded,
                "time was over before usage was read",
            )),
        }
    }
}

#[tonic::async_trait]
impl UsageService for Usage {
    async fn get_usage(
        &self,
        request: tonic::Request<GetUsageRequest>,
    ) -> Result<tonic::Response<GetUsageResponse>, tonic::Status> {
        let context = request.extensions().get::<OpContext>().cloned();
        let Some(context) = context else {
            return Err(to_tonic(&Error::internal("the caller layer is missing"), ""));
        };
        match self.answer(&context, request.get_ref()).await {
            Ok(answer) => Ok(tonic::Response::new(answer)),
            Err(error) => {
                if let Some(source) = &error.source {
                    tracing::warn!(request_id = %context.request_id, %error, source, "GetUsage");
                }
                Err(to_tonic(&error, &context.request_id))
            }
        }
    }
}

/// Where the partitions of a topic end; those missing are not known.
async fn log_ends(look: &Look<'_>, topic: &TopicRow, within: Duration) -> BTreeMap<i32, i64> {
    if topic.life == i32::from(Life::Gone) && !topic.final_end_offsets.is_empty() {
        return (0..).zip(topic.final_end_offsets.iter().copied()).collect();
    }
    if topic.partitions == 0 {
        return BTreeMap::new();
    }
    let TopicRow { uid, namespace_uid, cluster, partitions, .. } = *topic;
    look.of(Wanted { topic: uid, namespace: namespace_uid, cluster, partitions }, within).await
}

/// How many topics to read next, so that the answer is about full with them.
fn at_a_time(read: usize, weight: usize) -> usize {
    match read {
        0 => TOPICS_FIRST,
        read => (read * (PAGE_WEIGHT_MAX - weight.min(PAGE_WEIGHT_MAX)) / weight.max(1)).clamp(1, TOPICS_MAX),
    }
}

async fn read_topics(tx: &mut TenantTx, topics: &[TopicRow], from: i64, to: i64) -> Result<Vec<Counted>, DbError> {
    let uids: Vec<TopicUid> = topics.iter().map(|topic| topic.uid).collect();
    let ranges =
        |topic: &TopicRow| report::ranges_max(usize::try_from(topic.partitions).unwrap_or_default()) as i64 + 1;
    let listed: Vec<_> = topics.iter().map(|topic| (topic.uid, ranges(topic))).collect();
    let mut hours = hour_list(tx, &uids, from, to).await?;
    let mut coverage = coverage_list(tx, &listed).await?;
    let counted = topics.iter().map(|topic| Counted {
        hours: hours.remove(&topic.uid).unwrap_or_default(),
        coverage: coverage.remove(&topic.uid).unwrap_or_default(),
        topic: topic.clone(),
    });
    Ok(counted.collect())
}

fn topic_usage(counted: Counted, ends: &BTreeMap<i32, i64>) -> TopicUsage {
    let Counted { topic, hours, mut coverage } = counted;
    let known = usize::try_from(topic.partitions).unwrap_or_default().max(ends.len());
    let listed = report::ranges_max(known.max(coverage.len()));
    for partition in (0..topic.partitions).chain(ends.keys().copied()) {
        coverage.entry(partition).or_default();
    }
    let end = |partition: &i32| ends.get(partition).map_or(LogEnd::Unknown, |end| LogEnd::Known(*end));
    let mut sum = Amounts::default();
    for (_, hour) in &hours {
        sum.ingress_bytes += hour.ingress_bytes;
        sum.ingress_records += hour.ingress_records;
        sum.egress_bytes += hour.egress_bytes;
        sum.egress_records += hour.egress_records;
    }
    TopicUsage {
        topic: format!("namespaces/{}/topics/{}", topic.namespace_id, topic.id),
        topic_uid: topic.uid.to_string(),
        deleted: topic.life == i32::from(Life::Gone),
        totals: Some(totals(&sum)),
        hours: hours.iter().map(hour_usage).collect(),
        coverage: coverage.iter().map(|(id, stored)| report::partition(*id, stored, end(id), listed)).collect(),
    }
}

fn hour_usage((hour, amounts): &(i64, Amounts)) -> HourUsage {
    let start_time = Timestamp { seconds: hour * HOUR_SECONDS, nanos: 0 };
    HourUsage { start_time: Some(start_time), totals: Some(totals(amounts)) }
}

fn totals(amounts: &Amounts) -> UsageTotals {
    UsageTotals {
        ingress_bytes: amounts.ingress_bytes,
        ingress_records: amounts.ingress_records,
        egress_bytes: amounts.egress_bytes,
        egress_records: amounts.egress_records,
    }
}

fn text_of(time: Option<Timestamp>) -> String {
    time.map(|time| format!("{}.{}", time.seconds, time.nanos)).unwrap_or_default()
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often the database is asked for a page of so many topics of that weight each, and how much it then answers at most.
    fn page(topics: usize, weight_each: usize) -> (usize, usize) {
        let (mut rounds, mut read, mut weight) = (0, 0, 0);
        while read < topics && weight <= PAGE_WEIGHT_MAX {
            let some = at_a_time(read, weight).min(topics - read);
            (rounds, read, weight) = (rounds + 1, read + some, weight + some * weight_each);
        }
        (rounds, weight)
    }

    #[test]
    fn a_page_takes_few_queries_and_no_more_than_it_answers() {
        for weight_each in [0, 1, 30, 100, 700, 10_000] {
            let (rounds, weight) = page(1_000, weight_each);
            assert!(rounds <= 6, "{rounds} rounds for {weight_each} each");
            assert!(weight <= 2 * PAGE_WEIGHT_MAX.max(TOPICS_FIRST * weight_each), "{weight} for {weight_each} each");
        }
    }
}
