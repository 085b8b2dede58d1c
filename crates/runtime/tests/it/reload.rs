//! Renewed certificates serve without a restart; broken ones change nothing.

use std::time::Duration;

use rustls_pki_types::ServerName;
use sluice_runtime::server::Edge;
use sluice_runtime::tls::{ReloadingTls, client_config_for_ca};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::support::{PATIENCE, Pki, Server, exchange, write_private};

#[tokio::test]
async fn a_new_certificate_is_served_and_a_broken_one_is_not() {
    let pki = Pki::new();
    let files = pki.public("public");
    let tls = ReloadingTls::load(&files).expect("files");
    let server = Server::start(Edge::default(), Some(tls.clone()), PATIENCE).await;
    let served = async || {
        let connector = TlsConnector::from(client_config_for_ca(&pki.ca()).expect("config"));
        let name = ServerName::try_from("localhost").expect("name");
        let mut stream = connector.connect(name, server.connect().await).await.expect("handshake");
        assert!(exchange(&mut stream, "/").await.expect("answer").is_some());
        stream.get_ref().1.peer_certificates().expect("certificate")[0].to_vec()
    };
    let first = served().await;

    let watching = CancellationToken::new();
    let watch = tokio::spawn(tls.clone().watch(Duration::from_millis(5), watching.clone()));
    write_private(&files.key, "half a fi");
    assert!(tls.reload().is_err());
    assert_eq!(served().await, first);

    pki.public("public");
    tokio::time::timeout(PATIENCE, async { while served().await == first {} }).await.expect("reloads");
    watching.cancel();
    watch.await.expect("ends");
}
