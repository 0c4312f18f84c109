//! The streams that the city's sensors feed.

/// One stream: a topic, and the event schema of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// People counted; places in GCJ-02, as Chinese map services give them.
    CrowdFlow,
    /// Single parking spaces; places in GCJ-02.
    Parking,
    /// Air pollutants; places in WGS 84.
    Environment,
    /// Vehicles counted; places in GCJ-02.
    Traffic,
}

impl Stream {
    /// Every stream.
    pub const ALL: [Self; 4] = [Self::CrowdFlow, Self::Parking, Self::Environment, Self::Traffic];

    /// Its topic, which is also the CloudEvents type of its events.
    #[must_use]
    pub const fn topic(self) -> &'static str {
        match self {
            Self::CrowdFlow => "city.crowd.flow",
            Self::Parking => "city.parking.space",
            Self::Environment => "city.environment.observed",
            Self::Traffic => "city.traffic.flow",
        }
    }

    /// The name of its event schema.
    #[must_use]
    pub const fn schema(self) -> &'static str {
        match self {
            Self::CrowdFlow => "crowd_flow",
            Self::Parking => "parking_space",
            Self::Environment => "environment",
            Self::Traffic => "traffic",
        }
    }

    /// The field that names the sensor.
    pub(crate) const fn sensor_field(self) -> &'static str {
        match self {
            Self::CrowdFlow | Self::Traffic => "sensorId",
            Self::Parking => "spaceId",
            Self::Environment => "stationId",
        }
    }

    /// A required field that a wrong type or value spoils.
    pub(crate) const fn measured_field(self) -> &'static str {
        match self {
            Self::CrowdFlow => "peopleCount",
            Self::Parking => "status",
            Self::Environment => "value",
            Self::Traffic => "intensity",
        }
    }
}

#[cfg(test)]
mod tests {
    use citycell_schemas::event;

    use super::Stream;

    #[test]
    fn every_stream_has_a_shipped_schema_of_its_type_and_fields() {
        for stream in Stream::ALL {
            let schemas = event::shipped();
            let schema = schemas.iter().find(|schema| schema.name == stream.schema()).unwrap();
            assert_eq!(schema.cloudevents_type.as_deref(), Some(stream.topic()));
            assert!(schema.field(stream.sensor_field()).unwrap().required);
            assert!(schema.field(stream.measured_field()).unwrap().required);
        }
    }
}
