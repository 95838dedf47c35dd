//! Tests of pipelines: the model of the frontier, and what each part does.

mod model;
mod parts;
mod tcp;
mod world;
