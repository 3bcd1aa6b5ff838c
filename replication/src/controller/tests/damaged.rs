//! What the controller makes of a replica that is whole but for ranges it knows (rule 9).

use super::*;

#[test]
fn damaged_sole_replica_goes_on_leading_and_one_of_several_leaves_isr_and_elr() {
    let damaged = |id| ControllerRequest::RegisterBroker(registration(id, 2, Verdict::Damaged));
    let (image, decision) = run(&with_topic(1, &[1], &[]), damaged(1));
    let ControllerResponse::RegisterBroker(answer) = decision.response else { panic!("wrong answer") };
    assert_eq!((answer.offline, answer.may_lack_records), (vec![], vec![]));
    let image = unfence(&image, 1);
    assert_eq!((p0(&image).leader, &p0(&image).isr), (Some(BrokerId(1)), &ids(&[1])));

    let (image, _) = run(&with_topic(3, &[1, 2, 3], &[]), damaged(1));
    let partition = p0(&image);
    assert!(!partition.isr.contains(&BrokerId(1)) && !partition.elr.contains(&BrokerId(1)), "{partition:?}");
    assert!(partition.leader.is_some_and(|leader| leader != BrokerId(1)), "{partition:?}");
}
