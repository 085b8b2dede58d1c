//! A server that is empty, one that is ours, and one that somebody changed. Roles belong to the whole server, so each test has
//! roles of its own.

use sluice_devstack::{PostgresConnection, shared};
use sluice_installation::State;
use sluice_installation::postgres::{Action, Difference, Server, Service, Wanted, plan};

fn wanted(postgres: &PostgresConnection) -> Wanted {
    let name = postgres.fresh_name("inst").unwrap();
    let service = Service { name: name.clone(), database: format!("sluice_{name}") };
    let passwords = service.roles().map(|role| (role, "for'tests".to_owned().into())).into();
    Wanted { services: vec![service], passwords }
}

async fn differences(url: &str, wanted: &Wanted) -> Vec<Difference> {
    let mut server = Server::connect(&url.into()).await.unwrap();
    let observed = server.observe(wanted).await.unwrap();
    server.close().await.unwrap();
    plan(wanted, &observed)
}

async fn apply_all(url: &str, wanted: &Wanted, differences: &[Difference]) {
    let mut server = Server::connect(&url.into()).await.unwrap();
    server.lock().await.unwrap();
    for action in differences.iter().filter_map(Difference::action) {
        server.apply(action, |role| wanted.passwords.get(role).cloned()).await.unwrap();
    }
    server.close().await.unwrap();
}

#[tokio::test]
async fn an_empty_server_becomes_ours_and_what_is_changed_by_hand_is_named_and_mended() {
    let postgres = shared().await.unwrap().postgres().unwrap();
    let wanted = wanted(postgres);
    let url = postgres.url("postgres");
    let (service, database) = (&wanted.services[0], &wanted.services[0].database);

    let empty = differences(&url, &wanted).await;
    assert_eq!(empty.iter().filter(|difference| difference.kind == "role").count(), 3);
    apply_all(&url, &wanted, &empty).await;
    assert_eq!(differences(&url, &wanted).await, []);

    let app = service.role("app");
    let sql = format!(
        "ALTER ROLE {app} BYPASSRLS PASSWORD 'another'; GRANT CONNECT ON DATABASE {database} TO PUBLIC; \
         REVOKE CONNECT ON DATABASE {database} FROM {}; GRANT USAGE ON SCHEMA public TO PUBLIC",
        service.role("system")
    );
    postgres.execute(database, &sql).await.unwrap();

    let changed = differences(&url, &wanted).await;
    let named: Vec<_> = changed.iter().map(|d| (d.kind, d.name.as_str(), d.item.as_str(), d.state)).collect();
    let expected = [
        ("role", app.as_str(), "password", State::Differs),
        ("role", app.as_str(), "attribute", State::Differs),
        ("database", database.as_str(), "PUBLIC", State::Unwanted),
        ("database", database.as_str(), "grant", State::Missing),
        ("database", database.as_str(), "schema public", State::Unwanted),
    ];
    assert_eq!(named, expected);
    apply_all(&url, &wanted, &changed).await;
    assert_eq!(differences(&url, &wanted).await, []);
}

#[tokio::test]
async fn a_role_that_is_no_super_user_installs_with_the_documented_rights() {
    let postgres = shared().await.unwrap().postgres().unwrap();
    let wanted = wanted(postgres);
    let installer = postgres.fresh_name("installer").unwrap();
    let sql = format!("CREATE ROLE {installer} LOGIN CREATEROLE CREATEDB PASSWORD 'installing'");
    postgres.execute("postgres", &sql).await.unwrap();
    let url = postgres.url_as(&installer, "installing", "postgres");

    apply_all(&url, &wanted, &differences(&url, &wanted).await).await;

    assert_eq!(differences(&url, &wanted).await, []);
}

#[tokio::test]
async fn a_role_without_rights_is_told_which_ones_it_lacks() {
    let postgres = shared().await.unwrap().postgres().unwrap();
    let wanted = wanted(postgres);
    let installer = postgres.fresh_name("installer").unwrap();
    let sql = format!("CREATE ROLE {installer} LOGIN PASSWORD 'installing'");
    postgres.execute("postgres", &sql).await.unwrap();
    let url = postgres.url_as(&installer, "installing", "postgres");

    let told = differences(&url, &wanted).await;
    let rights: Vec<_> = told.iter().filter(|d| d.kind == "right").map(|d| d.item.as_str()).collect();
    assert_eq!(rights, ["CREATEROLE", "CREATEDB"]);

    let mut server = Server::connect(&url.as_str().into()).await.unwrap();
    let create = Action::CreateRole { role: wanted.services[0].role("owner") };
    let refused = server.apply(&create, |_| None).await.unwrap_err();
    assert!(matches!(refused, sluice_db::DbError::Denied(_)), "{refused:?}");
}
