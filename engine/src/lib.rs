//! The system engine: runs the operating system's own services as containers
