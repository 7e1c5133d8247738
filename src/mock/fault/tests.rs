use super::*;

#[test]
fn a_fault_is_read_from_text() {
    let fault: Fault = "unavailable,count=3,scope=grpc,call=keep-alive,message=a, b".parse().unwrap();
    let wanted = Fault::new(Kind::Unavailable).count(3).scope(Scope::Grpc).call("keep-alive").message("a, b");
    assert_eq!(fault, wanted);
    for kind in KINDS {
        assert_eq!(kind.to_string().parse::<Fault>().unwrap(), Fault::new(kind));
    }
}

#[test]
fn a_wrong_fault_names_what_is_wrong_and_what_would_be_right() {
    for (text, words) in [
        ("refused", "black-hole"),
        ("stall,afer=1", "afer"),
        ("stall,after=soon", "after"),
        ("reset,count=0", "at least 1"),
        ("refuse,count=1", "use seconds"),
        ("http,status=99", "HTTP status"),
        ("stall,call=keepalive", "keep-alive"),
        ("slow,scope=tcp", "grpc, rest or both"),
        ("slow,seconds=NaN", "seconds"),
    ] {
        let said = text.parse::<Fault>().unwrap_err().to_string();
        assert!(said.contains(words), "{text}: {said}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fault_ends_with_its_count_or_its_time() {
    let faults = Faults::default();
    faults.add(Fault::new(Kind::Unavailable).count(2).scope(Scope::Grpc)).unwrap();
    assert!(faults.take(Kind::Unavailable, Scope::Rest, "get").is_none());
    assert!(faults.take(Kind::Unavailable, Scope::Grpc, "list").is_some());
    assert!(faults.take(Kind::Unavailable, Scope::Grpc, "list").is_some());
    assert!(faults.take(Kind::Unavailable, Scope::Grpc, "list").is_none());

    faults.add(Fault::new(Kind::Refuse).lasting(Duration::from_secs(10))).unwrap();
    let begun = Instant::now();
    faults.until(Kind::Refuse, Scope::Grpc, true).await;
    faults.until(Kind::Refuse, Scope::Grpc, false).await;
    assert_eq!(begun.elapsed().as_secs(), 10);
    assert!(faults.list().is_empty());
}
