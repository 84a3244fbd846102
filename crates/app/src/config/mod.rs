pub mod faults;
pub mod fill;
pub mod text;
pub mod tree;
