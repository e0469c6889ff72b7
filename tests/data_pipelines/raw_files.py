"""Small raw files that tests write and then spoil."""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

TEST_TIME = 1494604800

ALIBABA = {
    "raw_sample.csv": (
        "user,time_stamp,adgroup_id,pid,nonclk,clk\n"
        "1,1494010000,10,430548_1007,0,1\n"
        f"1,{TEST_TIME},10,430539_1007,1,0\n"
        "2,1494020000,11,430548_1007,1,0\n"
        "1,1494010000,11,430548_1007,1,0\n"
        f"3,{TEST_TIME - 1},99,430539_1007,1,0\n"
    ),
    "ad_feature.csv": (
        "adgroup_id,cate_id,campaign_id,customer,brand,price\n"
        "10,5,100,1000,7,170.0\n"
        "11,6,101,1001,NULL,0.01\n"
    ),
    # The published header ends with a blank, and so does this one.
    "user_profile.csv": (
        "userid,cms_segid,cms_group_id,final_gender_code,age_level,"
        "pvalue_level,shopping_level,occupation,new_user_class_level \n"
        "1,0,5,2,0,,3,0,3\n"
        "2,0,5,1,4,1,3,1,\n"
        "9,1,5,1,4,1,3,1,2\n"
    ),
    "behavior_log.csv": (
        "user,time_stamp,btag,cate,brand\n"
        "1,1494010001,pv,5,7\n"
        "1,1494009999,buy,5,7\n"
        "1,1494010000,pv,6,8\n"
        "1,1494009999,buy,5,7\n"
        "1,-5,pv,5,7\n"
        "1,9994010000,pv,5,7\n"
        "9,1494000000,pv,5,7\n"
        "2,1494000000,cart,6,8\n"
    ),
}

MOVIELENS = {
    "ratings.dat": "".join(
        f"{user}::{movie}::{rating}::{time}\n"
        for user, movie, rating, time in [
            (2, 1, 4, 500),
            (1, 1, 5, 100),
            (1, 2, 3, 100),
            (1, 3, 4, 200),
            (2, 2, 1, 300),
            (2, 3, 2, 300),
            (3, 1, 5, 400),
            (3, 77, 3, 450),
            (1, 2, 4, 600),
            (2, 3, 5, 600),
        ]
    ),
    "users.dat": "1::F::1::10::48067\n2::M::56::16::70072-1234\n",
    "movies.dat": (
        "1::Toy Story (1995)::Animation|Comedy\n"
        "2::Mis\xe9rables, Les (1995)::Drama\n"
        '3::Seven "7" (a.k.a. Se7en) (1996)::Crime|Thriller\n'
    ),
}

_LOG_HEADER = "user_id,video_id,date,hourmin,time_ms,is_click,is_like,"
KUAIRAND = {
    "log_standard_4_22_to_5_08_pure.csv": (
        f"{_LOG_HEADER}long_view,play_time_ms,duration_ms,tab\n"
        # 2022-04-29 23:59:59.999 and 2022-04-30 00:00, UTC+8.
        "1,10,20220429,0,1651247999999,1,0,1,4500,5000,1\n"
        "1,11,20220430,0,1651248000000,0,0,0,,0,1\n"
        "1,10,20220429,0,1651240000100,1,1,0,900,5000,1\n"
        "1,11,20220429,0,1651240000900,0,0,0,0,0,0\n"
        "1,10,20220429,0,1651240000100,1,1,0,900,5000,1\n"
        "2,12,20220429,0,1651241000000,1,0,1,9001,9000,2\n"
        "2,10,20220429,0,1651241000000,0,0,0,1,5000,2\n"
    ),
    "user_features_pure.csv": (
        "user_id,user_active_degree,follow_user_num_range,"
        "fans_user_num_range,friend_user_num_range,register_days_range,"
        + ",".join(f"onehot_feat{n}" for n in range(18))
        + "\n"
        '1,full_active,500+,"[100,1k)","[30,60)",730+,'
        + ",".join(["0"] * 4 + [""] + ["1"] * 13)
        + "\n"
    ),
    "video_features_basic_pure.csv": (
        "video_id,author_id,video_type,upload_type,video_duration,music_id,"
        "tag\n"
        '10,100,NORMAL,LongImport,5000.0,1000,"39,68"\n'
        "11,101,AD,Kmovie,,1001,\n"
    ),
}


def write(folder: Path, files: Mapping[str, str]) -> Path:
    """Writes `files` as latin-1, which leaves ASCII as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_bytes(text.encode("latin-1"))
    return folder


def packed(data: bytes, suffix: str, name: str = "file.csv") -> bytes:
    """Packs the bytes of a file as its name says: "", .gz, .tar.gz, .zip.

    Archives also hold what macOS leaves in them.
    """
    if suffix == ".gz":
        return gzip.compress(data, mtime=0)
    if suffix == ".tar.gz":
        return tar_gz({f"._{name}": b"junk", name: data})
    if suffix == ".zip":
        return zipped({name: data, f"__MACOSX/._{name}": b"junk"})
    return data


def tar_gz(members: Mapping[str, bytes]) -> bytes:
    """Returns an archive of files, or of a folder where a name ends in /."""
    archived = io.BytesIO()
    with tarfile.open(fileobj=archived, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if name.endswith("/"):
                member.type = tarfile.DIRTYPE
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return archived.getvalue()


def zipped(
    members: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED
) -> bytes:
    """Returns an archive of files, or of a folder where a name ends in /."""
    archived = io.BytesIO()
    with zipfile.ZipFile(archived, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return archived.getvalue()
