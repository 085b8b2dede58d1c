//! Callers in a hurry: their own time is over, and the cluster is well.

use super::*;

const OVER: i32 = 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_ran_out_is_told_as_that_and_not_blamed_on_the_cluster() {
    let world = World::new(1).await;
    world.produce(vec![keyed("k", "v")]).await;
    for wait in [0, 1, 2, 5, 20, 50].map(Duration::from_millis) {
        let call = || world.call_within(wait);
        let fetched = world.fetch_by(&call(), FetchRequest::default()).await.map(drop);
        let listed = ListOffsetsRequest { topic: NAME.into(), ..Default::default() };
        let listed = world.data.offsets(&call(), listed).await.map(drop);
        let described = GetTopicMetadataRequest { topic: NAME.into() };
        let described = world.data.topic_metadata(&call(), described).await.map(drop);
        for error in [fetched, listed, described].into_iter().filter_map(Result::err) {
            let told = (error.kind, error.reason);
            assert_eq!(told, (ErrorKind::DeadlineExceeded, Reason::DeadlineExceeded), "{wait:?}: {}", error.message);
        }
        let request = ProduceRequest { topic: NAME.into(), records: vec![keyed("k", "v")] };
        let answer = world.data.produce_records(&call(), request).await.expect("results");
        let told = answer.results[0].error.as_ref().map(|error| error.code);
        assert!(told.is_none_or(|code| code == OVER), "{wait:?}: {:?}", answer.results[0]);
    }
    let call = world.call_within(Duration::ZERO);
    assert!(world.fetch_by(&call, FetchRequest::default()).await.is_err(), "no time is too little");
}
