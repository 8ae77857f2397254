//! Integration tests of the binary, one module for each area.

mod config;
