//! What an engine at work shows of itself.

use citycell::{
    engine,
    http::{self, Listener},
};

use crate::{
    broker::{Sender, create_topic, unique},
    city::{config, crowd_flow, event},
    store::TestStore,
};

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_health_follow_the_engine() {
    let store = TestStore::start();
    let topic = unique("metrics");
    create_topic(&topic, 1).await;
    let sender = Sender::new();
    sender.send(&topic, 0, Some(event("1", 0, 0, "a", 10).as_bytes()));
    sender.send(&topic, 0, Some(b"{"));
    sender.flush();

    let config = config(&topic, store.settings(), vec![crowd_flow(&topic)]);
    let engine = engine::start(config).await.unwrap();
    let address = http::serve(
        Listener::new("127.0.0.1:0".parse().unwrap(), None).unwrap(),
        engine.metrics.clone(),
        engine.readiness.clone(),
    );
    let address = address.await.unwrap();
    // Plain HTTP, but the client asks for a provider of TLS when it is made.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let get = async |path: &str| {
        let answer = reqwest::get(format!("http://{address}{path}")).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };

    assert_eq!(get("/healthz").await, (200, "ok\n".to_owned()));
    let counted = r#"citycell_records_total{pipeline="crowd_flow",outcome="counted"} 1"#;
    let metrics = loop {
        let (status, metrics) = get("/metrics").await;
        assert_eq!(status, 200);
        if metrics.contains(counted) {
            break metrics;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    for line in [
        r#"citycell_records_total{pipeline="crowd_flow",outcome="rejected"} 1"#,
        &format!(r#"citycell_lag_records{{topic="{topic}",partition="0"}}"#),
        r#"citycell_live_keys{pipeline="crowd_flow"}"#,
        r#"citycell_live_bytes{pipeline="crowd_flow"}"#,
        r#"citycell_watermark_ms{pipeline="crowd_flow"}"#,
        r#"citycell_insert_seconds_count{pipeline="crowd_flow"}"#,
        "citycell_epoch_seconds_count",
        "citycell_buffered_bytes",
        "# EOF",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    assert_eq!(get("/readyz").await.0, 200);

    engine.stop();
    let readiness = engine.readiness.clone();
    tokio::task::spawn_blocking(|| engine.wait()).await.unwrap().unwrap();
    assert!(!readiness.get());
    assert_eq!(get("/readyz").await.0, 503);
}
