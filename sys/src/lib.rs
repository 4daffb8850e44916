//! System calls and ioctls that no crate wraps: the only crate with unsafe code
