//! What a request asks for: everything that is settled before the engine is asked for anything.

use axum::body::BodyDataStream;
use axum::extract::Request;
use axum::http::Method;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use crate::authentication::{self, Role};
use crate::config::StoreConfig;
use crate::exception::Exception;
use crate::insert::Insert;
use crate::multipart;
use crate::parameters;
use crate::select::Select;
use crate::statement::{self, Statement};

/// A statement in a body may be this long, as ClickHouse's `max_query_size`; an insert's data not
/// counted.
const STATEMENT_BYTES_MAX: usize = 256 * 1024;

/// An insert's data as they come.
pub(crate) type Data = BoxStream<'static, Result<Bytes, axum::Error>>;

/// What a request asks for.
pub(crate) enum Asked {
    /// To take these data in.
    Insert(Insert, Data),
    /// To run a statement that carries all it needs.
    Select(Select),
}

/// Reads a request; of an insert's data only what came with its statement. `query_id` becomes what
/// the request wants it to be.
pub(crate) async fn read(
    config: &StoreConfig,
    request: Request,
    query_id: &mut String,
) -> Result<Asked, Exception> {
    let (head, body) = request.into_parts();
    let mut url = parameters::decoded(head.uri.query().unwrap_or_default())?;
    let role = authentication::role(config, &head.headers, &url)?;
    let mut body = body.into_data_stream();
    if let Some(boundary) = multipart::boundary(&head.headers) {
        let mut form = BytesMut::new();
        read_statement(&mut body, &mut form).await?;
        refuse_more(&mut body).await?;
        url.0.extend(multipart::fields(&form, &boundary)?);
    }
    let mut parameters = parameters::sorted(url)?;
    parameters.read_headers(&head.headers);
    if let Some(asked) = &parameters.query_id {
        query_id.clone_from(asked);
    }
    let role = match (role, head.method) {
        (Role::Writer, Method::GET) => Role::WriterReading,
        (role, _) => role,
    };
    let mut text = BytesMut::from(parameters.query.take().unwrap_or_default().as_bytes());
    if text.is_empty() {
        read_statement(&mut body, &mut text).await?;
    }
    match statement::split(&text) {
        Statement::Insert(parts) => {
            let first = text.freeze().slice(parts.data_at..);
            let insert = Insert { head: parts.head, format: parts.format, role, parameters };
            Ok(Asked::Insert(insert, stream::iter([Ok(first)]).chain(body).boxed()))
        }
        Statement::Plain => {
            if !text.is_empty() {
                text.extend_from_slice(b"\n");
            }
            read_statement(&mut body, &mut text).await?;
            refuse_more(&mut body).await?;
            let sql = String::from_utf8(text.to_vec())
                .map_err(|_| Exception::bad_request("The statement is not valid UTF-8"))?;
            Ok(Asked::Select(Select { sql: sql.trim().to_owned(), role, parameters }))
        }
    }
}

/// Reads the body until it ends or holds more than a statement may.
async fn read_statement(body: &mut BodyDataStream, text: &mut BytesMut) -> Result<(), Exception> {
    while text.len() <= STATEMENT_BYTES_MAX {
        match body.next().await {
            Some(Ok(piece)) => text.extend_from_slice(&piece),
            Some(Err(_)) => {
                return Err(Exception::new(210, "NETWORK_ERROR", "The client went away"));
            }
            None => break,
        }
    }
    Ok(())
}

async fn refuse_more(body: &mut BodyDataStream) -> Result<(), Exception> {
    if body.next().await.is_none() {
        return Ok(());
    }
    let text = format!("A statement is longer than {STATEMENT_BYTES_MAX} bytes");
    Err(Exception::new(229, "QUERY_IS_TOO_LARGE", &text))
}
