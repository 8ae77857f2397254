//! The price book: what it holds, and what it leaves out.

use outrigger_core::units::NanoUsd;
use outrigger_plan::economics::{Book, age_days};

fn dropped(csv: &str) -> Vec<String> {
    let mut book = Book::builtin();
    book.add_csv(csv, "test").unwrap();
    book.dropped.iter().map(|dropped| dropped.why.clone()).collect()
}

#[test]
fn the_built_in_book_keeps_all_rows_that_can_be_true() {
    let book = Book::builtin();
    assert!(book.offers.len() > 1_000 && book.hosted.len() > 40);
    assert_eq!(book.dropped, []);
    let row = book.offer("coreweave", "h100", Some("us-east-04"), 4).unwrap();
    assert_eq!((row.usd_per_hour, row.gpus, row.min_gpus), (NanoUsd(49_240_000_000), 8, 8));
    assert_eq!(book.offer("aws", "h100", Some("us-east-1"), 4).unwrap().gpus, 8, "one that holds a replica");
    assert_eq!(book.offer("aws", "h100", Some("us-east-1"), 1).unwrap().gpus, 1);
    assert_eq!(book.offer("lambda", "h100", None, 4).unwrap().gpus, 1, "only one is known");
    assert!(book.offer("modal", "h100", None, 1).is_none() && book.offer("aws", "h100", Some("x"), 1).is_none());
    for row in &book.offers {
        let today = "2026-11-30".parse().unwrap();
        assert!(age_days(&row.as_of, today).is_some() && !row.source.is_empty() && !row.licence.is_empty(), "{row:?}");
    }
}

#[test]
fn rows_that_cannot_be_true_are_dropped_with_the_reason() {
    let head = "provider,region,gpu,gpus,usd_per_hour,usd_per_gpu_hour,tier,as_of,gpu_mem_gib\n";
    for (row, says) in [
        ("x,any,H100,8,6.155,6.155,on-demand,2026-11-01,", "do not agree"),
        ("x,any,H100,8,0,,on-demand,2026-11-01,", "not a price"),
        ("x,any,H100,8,-3,,on-demand,2026-11-01,", "not a price"),
        ("x,any,H100,8,NaN,,on-demand,2026-11-01,", "not a price"),
        ("x,any,H100,8,,,on-demand,2026-11-01,", "no price"),
        ("x,any,H100,0,8,,on-demand,2026-11-01,", "gpus is `0`"),
        ("x,any,H100,8,8,,spot-estimated,2026-11-01,", "estimated"),
        ("x,any,H100,8,8,,on-demand,yesterday,", "yesterday"),
        (",any,H100,8,8,,on-demand,2026-11-01,", "no provider"),
        ("verda,any,H100,1,99,,spot,2026,\nverda,any,H100,1,2,,on-demand,2026-11,", "something else"),
    ] {
        let why = dropped(&format!("{head}{row}\n"));
        assert!(why.len() == 1 && why[0].contains(says), "{row}: {why:?}");
    }
    let mut book = Book::default();
    let added = book.add_csv(&format!("{head}x,any,H100,8,,2.5,on-demand,2026-10,81920\n"), "mine").unwrap();
    assert_eq!((added, book.offers[0].usd_per_hour, book.offers[0].min_gpus), (1, NanoUsd(20_000_000_000), 8));
    assert!(book.notes[0].contains("MiB") && book.offers[0].source == "mine", "{:?}", book.notes);
    assert!(book.add_csv("a,b\n1,2\n", "x").is_err());
}

#[test]
fn token_prices_are_read_from_litellm_and_zeros_are_gaps() {
    let json = r#"{"sample_spec":{"mode":"chat"},
        "p/a":{"litellm_provider":"p","mode":"chat","input_cost_per_token":1.5e-7,"output_cost_per_token":6e-7},
        "p/zero":{"litellm_provider":"p","mode":"chat","input_cost_per_token":0.0,"output_cost_per_token":0.0},
        "p/embed":{"litellm_provider":"p","mode":"embedding","input_cost_per_token":1e-8},
        "p/word":{"litellm_provider":"p","mode":"chat","input_cost_per_token":"free"}}"#;
    let mut book = Book::default();
    assert_eq!(book.add_litellm(json, "2026-11-24"), Ok(1));
    assert_eq!(book.token_price("p", "a").unwrap().price.input, NanoUsd(150_000_000));
    let rows: Vec<&str> = book.dropped.iter().map(|dropped| dropped.row.as_str()).collect();
    assert_eq!(rows, ["p/word", "p/zero"]);
    assert!(book.add_litellm("[1]", "2026").is_err());
}

#[test]
fn a_date_of_a_month_or_a_year_counts_from_its_first_day() {
    let today = "2026-11-30".parse().unwrap();
    assert_eq!(age_days("2026-11-24", today), Some(6));
    assert_eq!(age_days("2026-11", today), Some(29));
    assert_eq!(age_days("2026", today), Some(333));
    assert_eq!(age_days("soon", today), None);
}
