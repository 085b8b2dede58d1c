//! How many streams a tenant may have at a gateway.

use std::time::Duration;

use reqwest::{Client, Response};

use crate::egress::Shop;
use crate::world::PATIENCE;

const MOST: usize = 2;
const TABLES: &str = "[limits]\nstreams_per_tenant = 2\n";
const ROUNDS: usize = 5;
/// Clients that want a stream at the same moment.
const AT_ONCE: usize = 8;

/// How the clients of a round are connected.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Connected {
    Http1,
    Http2,
    OnceOverHttp2,
}

impl Connected {
    fn client(self) -> Client {
        let builder = match self {
            Self::Http1 => Client::builder().http1_only(),
            Self::Http2 | Self::OnceOverHttp2 => Client::builder().http2_prior_knowledge(),
        };
        builder.build().expect("a client")
    }
}

async fn ask(shop: &Shop, client: &Client) -> Response {
    let url = shop.gateway.url("/v1/namespaces/prod/groups/billing:stream");
    client.get(url).bearer_auth(shop.tenant.key.expose()).send().await.expect("an answer")
}

/// Whether it is a stream; what is refused names the limit.
async fn is_open(answer: Response) -> Option<Response> {
    if answer.status() == 200 {
        return Some(answer);
    }
    assert_eq!(answer.status(), 429);
    let text = answer.text().await.expect("text");
    assert!(text.contains("QUOTA_EXCEEDED") && text.contains("streams_per_tenant"), "{text}");
    None
}

/// Waits until a stream is open.
async fn open(shop: &Shop, client: &Client) -> Response {
    let opened = async {
        loop {
            if let Some(stream) = is_open(ask(shop, client).await).await {
                return stream;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, opened).await.expect("a place is free when a stream has ended")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_never_has_more_streams_than_it_may_however_its_clients_connect() {
    let shop = Shop::open(1, TABLES).await;
    for connected in [Connected::Http1, Connected::Http2, Connected::OnceOverHttp2] {
        let one = connected.client();
        let client = || if connected == Connected::OnceOverHttp2 { one.clone() } else { connected.client() };
        for round in 0..ROUNDS {
            // One after another, as soon as there are places.
            let mut streams = Vec::new();
            for _ in 0..MOST {
                streams.push(open(&shop, &client()).await);
            }
            for _ in 0..3 {
                assert!(is_open(ask(&shop, &client()).await).await.is_none(), "{connected:?}, round {round}");
            }
            // They are open still: each says something.
            for stream in &mut streams {
                let said = tokio::time::timeout(PATIENCE, stream.chunk()).await.expect("in time").expect("open");
                assert!(said.is_some_and(|said| !said.is_empty()), "{connected:?}, round {round}");
            }
            assert!(is_open(ask(&shop, &client()).await).await.is_none(), "{connected:?}, round {round}");
            // One ends; many want its place at once.
            streams.pop();
            streams.push(open(&shop, &client()).await);
            let clients: Vec<Client> = (0..AT_ONCE).map(|_| client()).collect();
            let answers = futures::future::join_all(clients.iter().map(|client| ask(&shop, client))).await;
            for answer in answers {
                assert!(is_open(answer).await.is_none(), "{connected:?}, round {round}: one more than may be");
            }
            // All end; many come at once, some of them before the places are free.
            drop(streams);
            let answers = futures::future::join_all(clients.iter().map(|client| ask(&shop, client))).await;
            let mut opened = 0;
            let mut held = Vec::new();
            for answer in answers {
                if let Some(stream) = is_open(answer).await {
                    opened += 1;
                    held.push(stream);
                }
            }
            assert!(opened <= MOST, "{connected:?}, round {round}: {opened} at once");
        }
    }
    shop.gateway.stop().await.expect("an orderly end");
}
