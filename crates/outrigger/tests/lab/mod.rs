//! The failure lab on the gateway of this build: one cell of every row here, all of them by `./test heavy lab`.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command, thread, time::Duration};

use outrigger_lab::{Cell, Matrix, Options, run};

fn matrix() -> Matrix {
    Matrix::built_in().unwrap()
}

#[tokio::test]
async fn one_cell_of_every_row_is_as_it_should_be() {
    // Another one of each, so that every version, endpoint and form is among them.
    let cells: Vec<Cell> = (matrix().rows().iter().enumerate())
        .map(|(nth, row)| {
            let cells = Cell::of(row);
            cells[nth * 7 % cells.len()].clone()
        })
        .collect();
    let options = Options { program: PathBuf::from(env!("CARGO_BIN_EXE_outrigger")), jobs: 4 };
    let judged = run(&options, cells, |_, _| {}).await.unwrap();
    let red: Vec<String> = (judged.iter())
        .filter(|(_, verdict)| !verdict.ok)
        .map(|(cell, verdict)| format!("{} {:?} {:?}", cell.id(), verdict.differences(), verdict.notes))
        .collect();
    assert!(red.is_empty(), "{red:#?}");
}

/// A cell that is red is played again, so that a busy machine is not taken for a bug; but never for so long that it is green.
#[tokio::test]
async fn a_cell_that_is_wrong_is_red_on_the_second_try_too() {
    let mut cell = Cell::of(&matrix().rows()[0])[0].clone();
    cell.row.expect.received = Some([0, 2]);
    let options = Options { program: PathBuf::from(env!("CARGO_BIN_EXE_outrigger")), jobs: 1 };
    let mut told = 0;
    let judged = run(&options, vec![cell], |_, _| told += 1).await.unwrap();
    let (_, verdict) = &judged[0];
    assert!(!verdict.ok && verdict.first_try == ["received: [0,1] instead of [0,2]"], "{verdict:?}");
    assert_eq!((verdict.told(), told), (verdict.first_try.clone(), 1));
}

#[test]
fn the_matrix_is_large_and_no_cell_is_in_it_twice() {
    let cells = matrix().cells();
    let ids: BTreeSet<String> = cells.iter().map(Cell::id).collect();
    assert_eq!(ids.len(), cells.len());
    assert!(cells.len() >= 300, "{}", cells.len());
}

#[test]
fn every_rule_has_a_heading_and_every_heading_a_row() {
    let page = fs::read_to_string("../../docs/failure-matrix.md").unwrap();
    let headings: BTreeSet<&str> = (page.lines())
        .filter_map(|line| line.strip_prefix("### ").or_else(|| line.strip_prefix("## ")))
        .filter(|heading| !heading.contains(' '))
        .collect();
    let matrix = matrix();
    let rules: BTreeSet<&str> = matrix.rows().iter().map(|row| row.rule.as_str()).collect();
    assert_eq!(headings, rules);
}

/// What `./test heavy lab` plants into a copy of the sources, to see the lab turn red.
#[test]
fn every_planted_bug_can_still_be_planted_and_names_cells_that_there_are() {
    let ids: BTreeSet<String> = matrix().cells().iter().map(Cell::id).collect();
    let mut planted = 0;
    for entry in fs::read_dir("../../tests/planted").unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let cells: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("Red: ")).collect();
        assert!(!cells.is_empty() && cells.iter().all(|id| ids.contains(*id)), "{}: {cells:?}", path.display());
        let patch = path.canonicalize().unwrap();
        let fits = Command::new("git").args(["apply", "--check"]).arg(&patch).current_dir("../..").output().unwrap();
        let why = String::from_utf8_lossy(&fits.stderr);
        assert!(
            fits.status.success(),
            "{}: {why}\n  plant the same bug again in the code as it is now",
            path.display()
        );
        planted += 1;
    }
    assert!(planted >= 25, "{planted}");
}

#[test]
fn a_lab_that_is_interrupted_leaves_no_gateway_behind() {
    let mut lab = Command::new(env!("CARGO_BIN_EXE_outrigger")).args(["lab", "--only", "silent"]).spawn().unwrap();
    let folder = format!("outrigger-lab-{}-", lab.id());
    let gateways = || {
        let commands =
            fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
        commands.filter(|command| String::from_utf8_lossy(command).contains(&folder)).count()
    };
    let mut waited = 0;
    while gateways() == 0 {
        waited += 1;
        assert!(waited < 400, "it starts no gateway");
        thread::sleep(Duration::from_millis(50));
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&lab), rustix::process::Signal::INT).unwrap();
    assert_eq!(lab.wait().unwrap().code(), Some(130));
    // The kernel takes a moment for a process that was killed.
    let mut waited = 0;
    while gateways() > 0 {
        waited += 1;
        assert!(waited < 200, "a gateway is left behind");
        thread::sleep(Duration::from_millis(50));
    }
    let left = fs::read_dir(std::env::temp_dir()).unwrap().filter_map(Result::ok);
    assert_eq!(left.filter(|entry| entry.file_name().to_string_lossy().contains(&folder)).count(), 0);
}
