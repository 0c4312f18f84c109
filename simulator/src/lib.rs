//! A seeded city that behaves: sensors, their faults and their events.
