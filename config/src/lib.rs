//! Cloud-config: model, validation and user-data formats, without I/O
