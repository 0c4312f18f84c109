//! ClickHouse as a library behind ClickHouse's HTTP interface.
