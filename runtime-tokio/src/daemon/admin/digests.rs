//! `GET /digests`: what the live state adds up to, and the keys behind it.
//!
//! Lists are short, so that two nodes of a million keys are compared in a few kilobytes: a digest
//! of a bucket or of a key is [`DIGITS`] hexadecimal digits of its print, one behind the other.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::json;
use slipstream_core::admin::{AdminAnswer, AdminRequest, DigestsHere};
use slipstream_core::digest::{BUCKETS, DigestQuery, Digests, Print};
use slipstream_core::ids::Hash128;
use slipstream_core::json::write::version_text;
use slipstream_core::message::Message;
use slipstream_core::tags::{TagSet, list};

use super::pages::{NodePages, PageAnswer, unexpected};
use super::reply::ReplyFailure;
use crate::daemon::digits::DIGITS;

/// What the paths may name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Selection {
    /// Go on behind this tag set, or this hash.
    after: Option<String>,
    /// A tag set, comma-joined.
    tags: Option<String>,
    /// Digests of messages that are asked for in full, comma-joined.
    digests: Option<String>,
}

/// `GET /digests`
pub(super) async fn tag_sets(
    state: NodePages,
    selection: Result<Query<Selection>, QueryRejection>,
) -> PageAnswer {
    let Query(selection) =
        selection.map_err(|error| ReplyFailure::bad_request(error.body_text()))?;
    let after = selection.after.as_deref().map(tag_set).transpose()?;
    let here = ask(state, DigestQuery::TagSets { after }).await?;
    let Digests::TagSets(roots) = here.digests else { return Err(other()) };
    let digests = roots.digests.iter();
    let digests = digests.map(|(tags, print)| json!({ "tags": tags, "digest": print.to_string() }));
    Ok(Json(json!({
        "node": here.node,
        "tags": here.tags,
        "head": here.head,
        "digests": digests.collect::<Vec<_>>(),
        "next": roots.upto.map(|tags| tags.as_str().to_owned()),
    }))
    .into_response())
}

/// `GET /digests/buckets?tags=TAGS`
pub(super) async fn buckets(
    state: NodePages,
    selection: Result<Query<Selection>, QueryRejection>,
) -> PageAnswer {
    let Query(selection) =
        selection.map_err(|error| ReplyFailure::bad_request(error.body_text()))?;
    let tags = tag_set(selection.tags.as_deref().unwrap_or_default())?;
    let here = ask(state, DigestQuery::Buckets { tags }).await?;
    let Digests::Buckets(buckets) = here.digests else { return Err(other()) };
    let digests: String = buckets.into_iter().map(short).collect();
    Ok(Json(json!({ "digests": digests })).into_response())
}

/// `GET /digests/buckets/{bucket}?tags=TAGS`
pub(super) async fn bucket(
    state: NodePages,
    bucket: Result<Path<u16>, PathRejection>,
    selection: Result<Query<Selection>, QueryRejection>,
) -> PageAnswer {
    let Path(bucket) = bucket.map_err(|error| ReplyFailure::bad_request(error.body_text()))?;
    let Query(selection) =
        selection.map_err(|error| ReplyFailure::bad_request(error.body_text()))?;
    if bucket >= BUCKETS {
        return Err(ReplyFailure::not_found(format!("there are {BUCKETS} buckets, from 0 on")));
    }
    let tags = tag_set(selection.tags.as_deref().unwrap_or_default())?;
    let after = selection.after.as_deref().map(hash).transpose()?;
    let here = ask(state, DigestQuery::Entries { tags, bucket, after }).await?;
    let Digests::Entries { entries, next } = here.digests else { return Err(other()) };
    let next = next.map(|hash| format!("{hash:?}"));
    let answer = match selection.digests {
        None => {
            let digests: String = entries.iter().map(|(print, _)| short(*print)).collect();
            json!({ "digests": digests, "next": next })
        }
        Some(wanted) => {
            let wanted: Vec<&str> = wanted.split(',').collect();
            let named = entries.iter().map(|(print, message)| (short(*print), message));
            let named = named.filter(|(digest, _)| wanted.contains(&digest.as_str()));
            let messages: Vec<_> = named.map(|(digest, message)| shown(&digest, message)).collect();
            json!({ "messages": messages, "next": next })
        }
    };
    Ok(Json(answer).into_response())
}

/// What is shown of a message: never its value.
fn shown(digest: &str, message: &Message) -> serde_json::Value {
    json!({
        "digest": digest,
        "key": message.key(),
        "targetedTags": list(message.tags()).collect::<Vec<_>>(),
        "type": message.kind().as_str(),
        "version": version_text(message.version(), message.origin()),
        "messageId": message.id(),
        "originInstanceId": message.origin(),
    })
}

async fn ask(State(admin): NodePages, query: DigestQuery) -> Result<DigestsHere, ReplyFailure> {
    match admin.running()?.node.admin(AdminRequest::Digests(query)).await? {
        AdminAnswer::Digests(here) => Ok(*here),
        other => Err(unexpected(other)),
    }
}

fn other() -> ReplyFailure {
    ReplyFailure::internal("the node answered another question")
}

fn short(print: Print) -> String {
    let mut digits = print.to_string();
    digits.truncate(DIGITS);
    digits
}

fn tag_set(text: &str) -> Result<TagSet, ReplyFailure> {
    TagSet::new(list(text)).map_err(|bad| ReplyFailure::bad_request(format!("tags: {bad}")))
}

fn hash(text: &str) -> Result<Hash128, ReplyFailure> {
    let number = u128::from_str_radix(text, 16);
    let number = number.map_err(|_| ReplyFailure::bad_request("after: 32 hexadecimal digits"))?;
    Ok(Hash128(number.to_be_bytes()))
}
