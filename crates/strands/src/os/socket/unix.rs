//! What is the same on all Unix systems.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::{Errno, Result};
use rustix::net::{self, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer};

pub(crate) const RECEIVE: RecvFlags = RecvFlags::DONTWAIT;
pub(crate) const REUSE_ADDRESS: bool = true;
pub(crate) const DESCRIPTOR: &str = "fd";

pub(crate) fn is_nonblocking(fd: &OwnedFd) -> bool {
    fcntl_getfl(fd).is_ok_and(|flags| flags.contains(OFlags::NONBLOCK))
}

pub(crate) fn is_connecting(error: Errno) -> bool {
    matches!(error, Errno::INPROGRESS | Errno::ALREADY)
}

pub(crate) fn receive_vectored(fd: BorrowedFd<'_>, bufs: &mut [IoSliceMut<'_>]) -> Result<usize> {
    let mut control = RecvAncillaryBuffer::default();
    net::recvmsg(fd, bufs, &mut control, RECEIVE).map(|message| message.bytes)
}

pub(crate) fn send_vectored(fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>]) -> Result<usize> {
    let mut control = SendAncillaryBuffer::default();
    net::sendmsg(fd, bufs, &mut control, super::SEND)
}
