//! What reaches the loop of a shell: from connections, and from those who hold a node.

use alloc::vec::Vec;

use crate::admin::{AdminAnswer, AdminRequest};
use crate::app::ConnectError;
use crate::host::event_stream::Feed;
use crate::host::exit::NodeGone;
use crate::host::shared::{OneShotSender, Shared};
use crate::io::{End, Frame, Input};
use crate::types::ids::{DialId, LinkId};

/// One thing that has come. `O` is a connection as the shell opens it.
#[derive(Debug)]
pub enum Incoming<O> {
    /// A connection whose handshake is done.
    Opened(O),
    /// A dial led to none.
    NotOpened(DialId, ConnectError),
    /// Frames of one link, as many as were there, and how it ends if these are the last.
    Received(LinkId, Vec<Frame>, Option<End>),
    /// All else, as it is.
    Input(Input),
    /// Somebody asks something of the node.
    Asked(NodeRequest),
}

/// What is asked of a node by those who hold it.
#[derive(Debug)]
pub enum NodeRequest {
    /// A question or order of the operator.
    Admin(AdminRequest, OneShotSender<Result<AdminAnswer, NodeGone>>),
    /// To be kept by the store's thread: a sign that it lives.
    Alive(OneShotSender<Result<(), NodeGone>>),
    /// To be told what happens.
    Watch(Shared<Feed>),
    /// [`Input::Reconfigure`] or [`Input::ShutDown`].
    Input(Input),
}
