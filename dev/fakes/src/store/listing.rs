//! What a bucket holds, page by page: `ListObjectsV2`, and the older form with markers.
//!
//! The folder is walked for each page. That is slow for a bucket of a million objects, which no test has, and right after every
//! change, also one made by hand.

use std::{fs, io, path::Path};

use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::store::{
    asked::Asked,
    disk::{Disk, hex},
    refusal::Refusal,
    uploads, xml,
};

const PAGE: usize = 1000;
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// One line of a page.
enum Row {
    Object(String),
    /// All keys that go on from here.
    Folder(String),
}

impl Row {
    fn name(&self) -> &str {
        match self {
            Self::Object(name) | Self::Folder(name) => name,
        }
    }
}

pub(super) fn objects(disk: &Disk, asked: &Asked) -> Result<String, Refusal> {
    let newer = asked.get("list-type") == Some("2");
    let prefix = asked.get("prefix").unwrap_or_default();
    let delimiter = asked.get("delimiter").unwrap_or_default();
    let most = asked.number("max-keys").unwrap_or(PAGE).min(PAGE);
    let after = if newer {
        let token = asked.get("continuation-token").map(behind_token).transpose()?;
        token.or_else(|| asked.get("start-after").map(str::to_owned))
    } else {
        asked.get("marker").map(str::to_owned)
    };
    let keys = keys(&disk.bucket(&asked.bucket)?, prefix)?;
    let mut rows = rows(keys, prefix, delimiter, after.as_deref().unwrap_or_default());
    let more = rows.len() > most;
    rows.truncate(most);
    let last = rows.last().map(|row| row.name().to_owned()).unwrap_or_default();

    let escape = |text: &str| match asked.get("encoding-type") {
        Some("url") => utf8_percent_encode(text, ESCAPED).to_string(),
        _ => xml::escaped(text),
    };
    let mut out = format!(
        "{}<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>{}</Name><Prefix>{}</Prefix>\
         <Delimiter>{}</Delimiter><MaxKeys>{most}</MaxKeys><IsTruncated>{more}</IsTruncated>",
        xml::HEAD,
        xml::escaped(&asked.bucket),
        escape(prefix),
        escape(delimiter)
    );
    if asked.get("encoding-type") == Some("url") {
        out += "<EncodingType>url</EncodingType>";
    }
    out += &match (newer, more) {
        (true, true) => format!(
            "<KeyCount>{}</KeyCount><NextContinuationToken>{}</NextContinuationToken>",
            rows.len(),
            hex(last.as_bytes())
        ),
        (true, false) => format!("<KeyCount>{}</KeyCount>", rows.len()),
        (false, true) => format!("<NextMarker>{}</NextMarker>", escape(&last)),
        (false, false) => String::new(),
    };
    for row in &rows {
        out += &match row {
            Row::Folder(name) => format!("<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>", escape(name)),
            Row::Object(key) => match disk.look(&asked.bucket, key) {
                Ok(object) => format!(
                    "<Contents><Key>{}</Key><LastModified>{}</LastModified><ETag>&quot;{}&quot;</ETag>\
                     <Size>{}</Size><StorageClass>STANDARD</StorageClass></Contents>",
                    escape(key),
                    time(object.modified),
                    object.meta.etag,
                    object.size
                ),
                // Deleted since the walk.
                Err(_) => String::new(),
            },
        };
    }
    Ok(out + "</ListBucketResult>")
}

pub(super) fn buckets(disk: &Disk) -> Result<String, Refusal> {
    let rows = disk.buckets()?.into_iter().map(|name| {
        format!("<Bucket><Name>{name}</Name><CreationDate>2026-01-01T00:00:00.000Z</CreationDate></Bucket>")
    });
    let rows: String = rows.collect();
    Ok(format!(
        "{}<ListAllMyBucketsResult><Owner><ID>test</ID><DisplayName>test</DisplayName></Owner><Buckets>{rows}</Buckets>\
         </ListAllMyBucketsResult>",
        xml::HEAD
    ))
}

pub(super) fn uploads(disk: &Disk, asked: &Asked) -> Result<String, Refusal> {
    disk.bucket(&asked.bucket)?;
    let prefix = asked.get("prefix").unwrap_or_default();
    let found = uploads::list(disk, &asked.bucket)?.into_iter().filter(|upload| upload.key.starts_with(prefix));
    let rows = found.take(PAGE).map(|upload| {
        format!(
            "<Upload><Key>{}</Key><UploadId>{}</UploadId><StorageClass>STANDARD</StorageClass><Initiated>{}</Initiated>\
             </Upload>",
            xml::escaped(&upload.key),
            upload.id,
            time(upload.begun())
        )
    });
    let rows: String = rows.collect();
    Ok(format!(
        "{}<ListMultipartUploadsResult><Bucket>{}</Bucket><Prefix>{}</Prefix><MaxUploads>{PAGE}</MaxUploads>\
         <IsTruncated>false</IsTruncated>{rows}</ListMultipartUploadsResult>",
        xml::HEAD,
        xml::escaped(&asked.bucket),
        xml::escaped(prefix)
    ))
}

pub(super) fn parts(disk: &Disk, asked: &Asked) -> Result<String, Refusal> {
    let upload = uploads::find(disk, &asked.bucket, &asked.key, asked.get("uploadId").unwrap_or_default())?;
    let (after, most) = (asked.number("part-number-marker").unwrap_or(0), asked.number("max-parts").unwrap_or(PAGE));
    let mut found = uploads::parts(disk, &upload)?;
    found.retain(|part| part.number > after);
    let more = found.len() > most.min(PAGE);
    found.truncate(most.min(PAGE));
    let rows = found.iter().map(|part| {
        format!(
            "<Part><PartNumber>{}</PartNumber><LastModified>{}</LastModified><ETag>&quot;{}&quot;</ETag><Size>{}</Size></Part>",
            part.number,
            time(part.modified),
            part.etag,
            part.size
        )
    });
    let rows: String = rows.collect();
    Ok(format!(
        "{}<ListPartsResult><Bucket>{}</Bucket><Key>{}</Key><UploadId>{}</UploadId><PartNumberMarker>{after}</PartNumberMarker>\
         <NextPartNumberMarker>{}</NextPartNumberMarker><MaxParts>{}</MaxParts><IsTruncated>{more}</IsTruncated>{rows}\
         </ListPartsResult>",
        xml::HEAD,
        xml::escaped(&asked.bucket),
        xml::escaped(&asked.key),
        upload.id,
        found.last().map_or(after, |part| part.number),
        most.min(PAGE)
    ))
}

/// As S3 writes it into XML.
pub(super) fn time(at: std::time::SystemTime) -> String {
    Timestamp::try_from(at).map(|at| format!("{at:.3}")).unwrap_or_default()
}

/// All keys with this beginning, in the order of their bytes.
fn keys(bucket: &Path, prefix: &str) -> io::Result<Vec<String>> {
    // Only the folder that all of them are in.
    let within = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut found = Vec::new();
    if !within.split('/').any(|part| part == "..") {
        walk(&bucket.join(within), within, &mut found)?;
    }
    found.retain(|key| key.starts_with(prefix));
    found.sort();
    Ok(found)
}

fn walk(folder: &Path, name: &str, found: &mut Vec<String>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let entry = entry?;
        let Ok(last) = entry.file_name().into_string() else { continue };
        let key = if name.is_empty() { last } else { format!("{name}/{last}") };
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), &key, found)?;
        } else {
            found.push(key);
        }
    }
    Ok(())
}

/// With all that lies below one delimiter as one row, behind the last row of the page before.
fn rows(keys: Vec<String>, prefix: &str, delimiter: &str, after: &str) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for key in keys {
        let cut = (!delimiter.is_empty()).then(|| key[prefix.len()..].find(delimiter)).flatten();
        let row = match cut {
            Some(at) => Row::Folder(key[..prefix.len() + at + delimiter.len()].to_owned()),
            None => Row::Object(key),
        };
        if row.name() > after && rows.last().is_none_or(|last| last.name() != row.name()) {
            rows.push(row);
        }
    }
    rows
}

fn behind_token(token: &str) -> Result<String, Refusal> {
    let wrong = || Refusal::invalid("the continuation token is none of this store");
    let pairs = token.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    let bytes = pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect::<Option<Vec<u8>>>();
    String::from_utf8(bytes.ok_or_else(wrong)?).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_go_on_behind_a_folder_and_not_in_it() {
        let all = || ["a", "b/1", "b/2", "c", "c/d"].map(String::from).to_vec();
        let names = |after: &str| rows(all(), "", "/", after).iter().map(|r| r.name().to_owned()).collect::<Vec<_>>();
        assert_eq!(names(""), ["a", "b/", "c", "c/"]);
        assert_eq!(names("b/"), ["c", "c/"]);
        assert_eq!(behind_token(&hex("b/ü".as_bytes())).unwrap(), "b/ü");
        assert!(behind_token("zz").is_err());
    }
}
