//! Where a machine's configuration is stored: for the program that applies it at each boot, and for the command line.
//!
//! - [`stored`]: files of layers, and what the data source said last

pub mod stored;
