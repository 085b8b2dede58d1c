//! LISTEN on a connection of its own, for waking jobs early. Notifications may be lost: whoever listens polls as well.

use std::time::Duration;

use sqlx::postgres::PgListener;

use crate::database::SystemScope;

const RECONNECT_PAUSE: Duration = Duration::from_millis(500);

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notification {
    /// A NOTIFY.
    On {
        /// The channel.
        channel: String,
        /// What was said; often nothing.
        payload: String,
    },
    /// Listening began, or began again: anything may have been missed.
    Connected,
}

/// Listens until dropped, calling `heard` for each notification. Reconnects for ever; run it in a task.
pub async fn listen(system: SystemScope, channels: &'static [&'static str], heard: impl Fn(Notification) + Send) {
    loop {
        if let Err(error) = listen_once(&system, channels, &heard).await {
            tracing::debug!(%error, "listening to the database ended; beginning again");
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

async fn listen_once(
    system: &SystemScope,
    channels: &[&'static str],
    heard: &impl Fn(Notification),
) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(system.pool()).await?;
    listener.listen_all(channels.iter().copied()).await?;
    heard(Notification::Connected);
    loop {
        match listener.try_recv().await? {
            Some(notification) => heard(Notification::On {
                channel: notification.channel().to_owned(),
                payload: notification.payload().to_owned(),
            }),
            None => heard(Notification::Connected),
        }
    }
}
