//! Bills as providers export them.

use outrigger_core::units::NanoUsd;
use outrigger_plan::economics::{InvoiceKind, read_focus};

#[test]
fn a_bill_is_summed_by_kind_and_a_wrong_line_is_named() {
    let head = "BilledCost,ServiceCategory,ServiceName\n";
    let rows = "100.25,Compute,\"EC2, GPUs\"\n-10,Compute,Credit\n5,Networking,x\n1.5,Security,y\n";
    let invoice = read_focus(&format!("{head}{rows}")).unwrap();
    assert_eq!(invoice[&InvoiceKind::Gpu], NanoUsd(90_250_000_000));
    assert_eq!(invoice[&InvoiceKind::Other], NanoUsd(1_500_000_000));
    assert!(read_focus(&format!("{head}1,Compute,x\nten,Compute,x\n")).unwrap_err().starts_with("line 3"));
    assert!(read_focus(&format!("{head}inf,Compute,x\n")).is_err());
    assert!(read_focus("a,b\n1,2\n").unwrap_err().contains("BilledCost"));
}
