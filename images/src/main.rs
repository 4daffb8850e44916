//! Builds Keelson's images from the recipes in this folder

fn main() {}
