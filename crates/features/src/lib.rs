//! No code: the features that tests add to shared libraries, in one place.
//!
//! Cargo compiles a library once for each set of features. The programs alone ask for fewer features than the whole workspace
//! does, so `make up` after `make test` (or the other way round) would compile the libraries and the workspace a second time. The
//! doors therefore build this package beside the programs in the `dev` profile. Release builds leave it out: no program depends
//! on it.
