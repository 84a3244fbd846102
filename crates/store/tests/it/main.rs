//! What is remembered, on a real disk: with other processes, kills, damage and full disks.

mod state;
