//! Who is let in, and what refusals look like.

use std::sync::Arc;
use std::time::Duration;

use sluice_devstack::{ADMIN, BILLING, shared};
use sluice_wire::{Client, ClientConfig, Error, NewTopic, ScramSha512, Security, code};

use crate::fixture::{TIMEOUT, unique};

#[tokio::test]
async fn a_wrong_password_is_an_authentication_error() {
    let kafka = shared().await.unwrap().kafka().unwrap();
    let mut config = kafka.client_config(ADMIN).unwrap();
    config.security.sasl = Some(ScramSha512 { user: ADMIN.to_owned(), password: "not the password".into() });
    let refused = Client::connect(config, TIMEOUT).await.err().unwrap();
    assert!(matches!(refused, Error::Authentication { .. }), "{refused:?}");
    assert!(!refused.is_retriable());
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused() {
    let kafka = shared().await.unwrap().kafka().unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let security = Security { tls: Some(Arc::new(tls)), sasl: None };
    let config = ClientConfig::new(&kafka.bootstrap).with_security(security);
    let refused = Client::connect(config, TIMEOUT).await.err().unwrap();
    assert!(matches!(refused, Error::Tls { .. }), "{refused:?}");
}

#[tokio::test]
async fn plain_text_to_a_tls_listener_fails_by_the_deadline() {
    let kafka = shared().await.unwrap().kafka().unwrap();
    let refused = Client::connect(ClientConfig::new(&kafka.bootstrap), TIMEOUT).await.err().unwrap();
    assert!(matches!(refused, Error::Disconnected { .. } | Error::Protocol(_)), "{refused:?}");
}

#[tokio::test]
async fn nobody_listening_is_a_connect_error() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let refused = Client::connect(ClientConfig::new([address]), TIMEOUT).await.err().unwrap();
    assert!(matches!(refused, Error::Connect { .. }) && refused.is_retriable(), "{refused:?}");
}

#[tokio::test]
async fn a_peer_that_never_answers_is_given_up_by_the_deadline() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = ClientConfig::new([silent.local_addr().unwrap().to_string()]);
    let started = std::time::Instant::now();
    assert!(Client::connect(config, Duration::from_millis(300)).await.is_err());
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn what_a_principal_may_not_do_is_refused_by_code() {
    let billing = shared().await.unwrap().kafka().unwrap().client(BILLING).unwrap();
    let topic = NewTopic { name: unique("forbidden"), partitions: 1, replication: 1, configs: Default::default() };
    let refused = billing.create_topic(&topic, TIMEOUT).await.unwrap_err();
    assert_eq!(refused.kafka_code(), Some(code::TOPIC_AUTHORIZATION_FAILED), "{refused:?}");
}
